"""Samples of an Experiment as jitted functions, and the Run, a trained experiment."""

import inspect
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from ddpm_jax.diffusion import Parameterization, Sampler, Schedule, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.parameterizations import thresholded, with_variance
from ddpm_jax.diffusion.parameterizations.classes import NO_MODEL
from ddpm_jax.diffusion.types import Variance
from ddpm_jax.experiment import Experiment, Params, network_fn, unpack, with_parameterization
from ddpm_jax.guides import Guide, Interval, check_guide, check_interval, classes, guided, no_guidance
from ddpm_jax.training import sharding


def sampler_fn(
    experiment: Experiment,
    kind: Callable[..., Sampler] | None = None,
    guidance: ArrayLike | None = None,
    interval: Array | None = None,
    guide: Guide | None = None,
    threshold: ArrayLike | None = None,
    **numbers: Any,
) -> Callable[[Params, Array | None], Sampler]:
    """Returns ``make(params, condition)`` -> Sampler `kind`, by default the experiment's, with numbers such as eta.

    `guidance` is the scale of guidance; None is none. The guidance is that of `guides.guided`, by labels or by `guide`.
    `interval` is the argument `low` and `high` of `guidance.limited`, `threshold` the quantile of dynamic thresholding
    (`parameterizations.thresholded`).
    """
    kind = kind or experiment.sampler

    def make(params: Params, condition: Array | None) -> Sampler:
        made, weights = unpack(experiment, params)
        parameterization, chosen = made.parameterization, kind
        if threshold is not None:
            parameterization = thresholded(made.process, parameterization, threshold)
        if guidance is not None:
            chosen = guided(kind, made, guidance, interval, guide)
        return chosen(made.process, parameterization, network_fn(made, weights), condition, **numbers)

    return make


def sample_fn(
    experiment: Experiment,
    sampler: Callable[..., Sampler] | None = None,
    steps: int | None = None,
    eta: float | None = None,
    spacing: samplers.Spacing = samplers.SPACINGS["even"],
    guidance: float | None = None,
    interval: Interval | None = None,
    guide: "Run | None" = None,
    variance: Variance | None = None,
    threshold: float | None = None,
    schedule: Schedule | None = None,
) -> Callable[..., Array]:
    """Returns ``sample(params, keys, condition=None)`` -> images, one per key, decoded: uint8, or floats for points.

    The sampler is the experiment's, or DDIM where `eta` is given. `steps` is the number of steps, by default T.
    `guidance` is the scale of `guidance.classifier_free`, or with a `guide`, another run, of `guidance.autoguidance`; 1
    or None is none. If the guide is a classifier, the condition is the class, and 0 or None is none. With an `interval`
    there is guidance only where low < sigma_t / alpha_t <= high. `variance` is that of ancestral sampling, by default
    the experiment's; `threshold` the quantile of `parameterizations.thresholded`, in (0, 1], None for none. `schedule`
    is the one over which to space the steps, by default that of the experiment; for an experiment that trains its
    schedule, `Run.schedule`. The result is jitted, with the tables of the schedule and of the variance, the times, eta,
    guidance, interval, threshold and the parameters of the guide as arguments of the compiled program: samplers that
    differ only in these share one compilation.
    Raises ValueError if steps is not in 1..T, eta is not in [0, 1], or the sampler has no eta or no variance, or needs
    all T steps, or the network cannot be guided, or not by this guide, or the spacing depends on a schedule that is
    trained and not given.
    """
    numbers = _numbers(eta, guidance, interval, guide, threshold)
    return Partial(*_sampling(experiment, sampler, _times(experiment, steps, spacing, schedule), variance, numbers))


def _times(
    experiment: Experiment, steps: int | None, spacing: samplers.Spacing, schedule: Schedule | None
) -> np.ndarray:
    """The times of this number of steps, by default T. Raises ValueError if they depend on an unknown schedule."""
    known = experiment.process.schedule if schedule is None else schedule
    times = spacing(known, known.num_steps if steps is None else steps)
    # the times of levels of the noise are real; the whole ones are the same for every schedule of T steps
    if schedule is None and experiment.trainable and np.issubdtype(times.dtype, np.floating):
        raise ValueError("the spacing depends on the schedule, which this experiment trains: give Run.schedule")
    return times


def _numbers(
    eta: float | None,
    guidance: float | None,
    interval: Interval | None,
    guide: "Run | None",
    threshold: float | None,
) -> dict[str, Any]:
    """What is given, without a scale that is no guidance. Raises ValueError for half of a guidance."""
    second = None if guide is None else Guide(guide.experiment, guide.params)
    for name, value in (("guidance-interval", interval), (second.option if second else "guide", guide)):
        if value is not None and guidance is None:
            raise ValueError(f"--{name} needs the scale of guidance: add --guidance 2, or leave it out")
    check_interval(interval)
    none = guidance in (None, no_guidance(second))
    guiding = {} if none else {"guidance": guidance, "interval": interval, "guide": second}
    given = {"eta": eta, "threshold": threshold} | guiding
    return {name: value for name, value in given.items() if value is not None}


def _sampling(
    experiment: Experiment,
    sampler: Any,
    times: np.ndarray,
    variance: Variance | None,
    numbers: dict[str, Any],
) -> tuple[Callable[..., Array], Parameterization, Array, dict[str, Any]]:
    """The jitted function and its first arguments: parameterization, times, and what depends on the kind of sampler."""
    if experiment.is_classifier:
        raise ValueError(NO_MODEL)
    kind = sampler or (samplers.ddim if "eta" in numbers else experiment.sampler)
    _check_numbers(experiment, kind, numbers)
    parameterization = experiment.parameterization
    if variance is not None:
        if kind is not samplers.ddpm:
            raise ValueError("--variance: this sampler has none to choose; add --sampler ancestral")
        parameterization = with_variance(parameterization, variance)
    samplers.check_times(kind(experiment.process, parameterization, network_fn(experiment, {}), None), times)
    traced: dict[str, Any] = {name: np.asarray(each, np.float32) for name, each in numbers.items() if name != "guide"}
    guide = numbers.get("guide")
    if guide is not None:
        traced["guide"] = guide.params
    program = _sample_program(experiment, kind, guide and guide.experiment)
    return program, *jax.device_put((parameterization, times, traced))  # uploaded once


def _check_numbers(experiment: Experiment, kind: Callable[..., Sampler], numbers: dict[str, Any]) -> None:
    """Raises ValueError for an eta, guidance or threshold out of range, or one that has no meaning here."""
    eta, guidance, guide, threshold = (numbers.get(name) for name in ("eta", "guidance", "guide", "threshold"))
    if eta is not None and not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    if eta is not None and "eta" not in inspect.signature(kind).parameters:
        raise ValueError(f"--eta {eta}: this sampler has no eta; choose --sampler ddim")
    if guidance is not None:
        if guide is None:
            classes(experiment, guidance)
        else:
            check_guide(experiment, guide, kind)
        if not math.isfinite(guidance):
            raise ValueError(f"--guidance must be finite, got {guidance}")
    if threshold is not None:
        _check_threshold(experiment, threshold)


def _check_threshold(experiment: Experiment, threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"--threshold must lie in (0, 1], got {threshold}")
    if experiment.process.family.name != "gaussian" or experiment.data.levels is None:
        raise ValueError(f"--threshold {threshold}: leave it out, it is for images, and this run has other data")


@lru_cache(maxsize=16)  # one compilation for all calls with the same experiment and sampler
def _sample_program(
    experiment: Experiment, kind: Callable[..., Sampler], guide: Experiment | None
) -> Callable[..., Array]:
    @jax.jit
    def sample(parameterization, times, numbers, params: Params, keys: Array, condition: Array | None = None) -> Array:
        guiding = {} if guide is None else {"guide": Guide(guide, numbers["guide"])}
        given = with_parameterization(experiment, parameterization)
        sampler = sampler_fn(given, kind, **(numbers | guiding))(params, condition)
        return experiment.encoding.decode(samplers.sample(keys, sampler, prior_sample(experiment, keys), times))

    return sample


@lru_cache(maxsize=16)
def _over_mesh(program: Callable[..., Array], mesh: Mesh) -> Callable[..., Array]:
    """The program of `_sample_program` with keys, condition and images split over all devices of the mesh."""
    same, split = PartitionSpec(), PartitionSpec(mesh.axis_names)
    specs = (same, same, same, same, split, split)
    on_mesh = jax.jit(jax.shard_map(program, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False))

    def sample(parameterization, times, numbers, params: Params, keys: Array, condition: Array | None = None) -> Array:
        if len(keys) % mesh.size:
            raise ValueError(f"{len(keys)} keys do not divide over {mesh.size} devices: give a multiple of {mesh.size}")
        return on_mesh(parameterization, times, numbers, params, keys, condition)

    return sample


def prior_sample(experiment: Experiment, keys: Key[Array, " batch"]) -> Array:
    """Draws x_T from the prior, one for each key. Folds 0 into the keys; the steps of a sampler fold in 1, 2, .."""
    return experiment.process.prior((len(keys), *experiment.data.image_shape)).sample(fold(keys, 0))


class Run(NamedTuple):
    """A trained experiment: what ``ddpm_jax.load`` returns."""

    experiment: Experiment
    params: Params
    """The parameters, by default their exponential moving average."""
    step: int
    """The training step of the checkpoint."""

    @property
    def schedule(self) -> Schedule:
        """The schedule of the noise; where it is trained with the network, the one that was trained."""
        return unpack(self.experiment, self.params)[0].process.schedule

    def sampler(
        self,
        steps: int | None = None,
        eta: float | None = None,
        sampler: str | None = None,
        spacing: str | samplers.Spacing = "even",
        guidance: float | None = None,
        interval: Interval | None = None,
        guide: "Run | None" = None,
        mesh: Mesh | None = None,
        variance: Variance | None = None,
        threshold: float | None = None,
    ) -> Callable[..., Array]:
        """Returns ``sample(keys, condition=None)`` -> images, uint8 [num, height, width, channels], or points or bits.

        The result is a jitted function with its weights, as one pytree (`jax.tree_util.Partial`), so it can be an
        argument of your own jitted functions. `sampler` and `spacing` are keys of ``samplers.SAMPLERS`` and
        ``samplers.SPACINGS``; `spacing` may also be a function such as ``samplers.optimal(...)``. The images are split
        over the devices of `mesh`, if there is one: then each of them has the parameters, and the number of keys must
        be a multiple of their number. The other arguments, and the errors, are those of `sample_fn`.
        """
        kind = None if sampler is None else samplers.SAMPLERS[sampler]
        spaced = samplers.SPACINGS[spacing] if isinstance(spacing, str) else spacing
        given = _numbers(eta, guidance, interval, guide, threshold)
        times = _times(self.experiment, steps, spaced, self.schedule)
        program, *numbers = _sampling(self.experiment, kind, times, variance, given)
        arguments = (*numbers, self.params)
        if mesh is None:
            return Partial(program, *arguments)
        return Partial(_over_mesh(program, mesh), *sharding.to_devices(arguments, sharding.replicated(mesh)))
