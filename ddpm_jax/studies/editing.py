"""Editing with a trained run: results given a measurement, SDEdit, and interpolation of DDIM latents.

Images and measurements are x_0, not decoded: `edits.edit_to_file` encodes and decodes them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ddpm_jax.diffusion import Network, Parameterization, Process, Sampler, guidance, parameterizations, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.guidance import LinearMeasurement, measurements
from ddpm_jax.experiment import network_fn, unpack
from ddpm_jax.sampling import Run
from ddpm_jax.studies.requests import EditRequest
from ddpm_jax.training.keys import keys


class Model(NamedTuple):
    """What a sampler is made of."""

    process: Process
    parameterization: Parameterization
    network: Network
    label: Array | None


def measurement(
    request: EditRequest, shape: tuple[int, int, int], empty: Bool[np.ndarray, "*shape"] | None
) -> LinearMeasurement:
    """The measurement of this kind of edit; `empty` is the part that is missing, for inpaint.

    Raises ValueError for numbers out of range.
    """
    if not request.noise > 0:
        raise ValueError(f"--noise must be above 0, got {request.noise}")
    sigma = request.noise
    if request.kind == "inpaint":
        assert empty is not None
        return measurements.masked(~empty, sigma)
    if request.kind == "super-resolve":
        return measurements.pooled(shape, request.factor, sigma)
    if request.kind == "deblur":
        return measurements.blurred(shape, request.blur, sigma)
    return measurements.grey(shape, sigma)


class Drawn(NamedTuple):
    """Results of `restore`."""

    x_0: Float[Array, "num height width channels"]
    effective: float | None
    """The smallest effective sample size of the results, for twisted."""


def restore(run: Run, request: EditRequest, measured: LinearMeasurement, y: Float[Array, "*measured"]) -> Drawn:
    """`num` samples of x_0 given the measurement y, by ``request.method``; y is that of one image."""
    times, num = _times(run, request), request.num
    particles = request.particles if request.method == "twisted" else 0
    if request.method == "repaint":
        times = guidance.repaint_times(times, request.jump, request.resamples)

    @jax.jit
    def draw(params, batch_keys, y):
        model = _model(run, params, request.label, num)
        sampler = _given(model, request, measured, jnp.broadcast_to(y, (num, *y.shape)))
        shape = (num, *([particles] if particles else []), *measured.shape)
        x_T = model.process.prior(shape).sample(fold(batch_keys, 0))
        return samplers.stretch(batch_keys, sampler, x_T, sampler.init(x_T), times, 0, len(times) - 1)

    x_0, memory = draw(run.params, keys(request.seed, num), y)
    return Drawn(x_0[:, 0], float(memory.effective.min())) if particles else Drawn(x_0, None)


def sdedit(run: Run, request: EditRequest, guide: Float[Array, "height width channels"]) -> Array:
    """`num` results of SDEdit from the guide."""
    num, times = request.num, guidance.part_from(_times(run, request), request.strength)

    @jax.jit
    def draw(params, batch_keys, guide):
        model = _model(run, params, request.label, num)
        guides = jnp.broadcast_to(guide, (num, *guide.shape))
        return guidance.sdedit(batch_keys, _kind(request)(*model), model.process, guides, times)

    return draw(run.params, keys(request.seed, num), guide)


def interpolate(run: Run, request: EditRequest, pair: Float[Array, "2 height width channels"]) -> Array:
    """`num` images from the first to the second: slerp between their DDIM latents x_T, decoded by DDIM."""
    num, times = request.num, _times(run, request)
    # as many examples as results at once, so that both walks have one batch size
    shares = jnp.linspace(0, 1, num)

    @jax.jit
    def draw(params, batch_keys, pair):
        model = _model(run, params, request.label, num)
        model = model._replace(parameterization=model.parameterization.unclipped())  # clipping cannot be undone
        ends = [jnp.broadcast_to(x, (num, *x.shape)) for x in pair]
        up = samplers.encoder(*model)
        first, second = (samplers.sample(batch_keys, up, x, times[::-1]) for x in ends)
        return samplers.sample(batch_keys, samplers.ddim(*model), guidance.slerp(first, second, shares), times)

    return draw(run.params, keys(request.seed, num), pair)


def _model(run: Run, params: Any, label: int | None, num: int) -> Model:
    experiment, weights = unpack(run.experiment, params)
    labels = None if label is None else jnp.full(num, label, jnp.int32)
    return Model(experiment.process, experiment.parameterization, network_fn(experiment, weights), labels)


def _times(run: Run, request: EditRequest) -> np.ndarray:
    """The falling times of the request."""
    schedule = run.schedule
    steps = min(250, schedule.num_steps) if request.steps is None else request.steps
    return samplers.SPACINGS[request.spacing](schedule, steps)


def _kind(request: EditRequest) -> Callable[..., Sampler]:
    return samplers.SAMPLERS[request.sampler or "ancestral"]


def _given(model: Model, request: EditRequest, measured: LinearMeasurement, y: Array) -> Sampler:
    """The sampler of the method, for measurements y [num, ...]."""
    process, parameterization, network, label = model
    problem = (network, measured, y)
    if request.method == "twisted":
        return guidance.twisted(process, parameterization, *problem, label, request.iterations)
    if request.method in ("mmps", "pigdm"):
        method = guidance.mmps if request.method == "mmps" else guidance.pigdm
        given = method(process, parameterization, *problem, request.iterations)
        return _kind(request)(process, _of_x_0(process, parameterization), given, label)
    plain = _kind(request)(*model)
    if request.method == "dps":
        return guidance.dps(plain, parameterization, *problem, label, request.scale)
    known = jax.vmap(measured.transpose)(y)
    mask = measured.transpose(jnp.ones(y.shape[1:])) > 0
    if request.method == "repaint":
        return guidance.repaint(plain, process, known, mask)
    return guidance.inpaint(plain, process, known, mask, noised=True)


def _of_x_0(process: Process, parameterization: Parameterization) -> Parameterization:
    """The parameterization of a network with output x_0; variance and clipping are those of `parameterization`."""
    variance = parameterization.variance or parameterizations.fixed_small
    plain = parameterizations.x0(process, variance)
    return plain if parameterization.clip is None else parameterizations.clipped(process, plain, *parameterization.clip)
