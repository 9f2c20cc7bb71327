"""Likelihood of data under a run: the variational bound in its parts, importance sampling, and bounds on entropies."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import load
from ddpm_jax.diffusion import losses, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses import Bound
from ddpm_jax.experiment import Batch, Experiment, Params, bound_fn, network_fn, unpack
from ddpm_jax.runs.chunks import Result, Work, kept, on_devices
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.sampling import Run
from ddpm_jax.training.keys import EVALUATE, keys

Estimate = tuple[float, float | None]
"""(mean, standard error over examples); the error is None for a single example."""


class BitsPerDim(NamedTuple):
    """The upper bound on the negative log-likelihood, and its parts, in bits per dimension (Ho et al. 2020, Eq. 5)."""

    total: Estimate
    prior: Estimate
    chain: Estimate
    decoder: Estimate
    num_examples: int
    times: int
    """The number of chain terms evaluated per example; fewer than all T - 1 give an unbiased estimate."""
    K: Estimate
    """The lower bound on log p(x_0) of Sohl-Dickstein et al. 2015, with the fixed last step, in bits per pixel."""
    K_over_null: Estimate
    """K - L_null: K minus the log-likelihood under the prior alone, in bits per pixel."""
    pixels: int
    """The number of pixels, height times width, of an image; 1 for points and sequences."""
    rate: np.ndarray | None
    """[T]: total bits/dim received when t has fallen to T, .., 1, without the decoder; None unless all t are used."""
    distortion: np.ndarray | None
    """[T]: RMSE of the estimate of x_0 at these t, on the 0-255 scale (Ho et al. 2020, Figure 5 and Table 4); None also
    where x_0 are not pixels."""

    def record(self) -> dict[str, Any]:
        """The fields as values that JSON can store."""
        curves = {name: None if (curve := getattr(self, name)) is None else curve.tolist() for name in _CURVES}
        return {**self._asdict(), **curves}


_CURVES = ("rate", "distortion")


def bits_per_dim(
    run: Run,
    source: Sequence,
    num: int | None = None,
    times: int | None = None,
    batch_size: int = 120,
    seed: int = 0,
    reporter: Reporter | None = None,
    keep: Path | None = None,
    visits: np.ndarray | None = None,
) -> BitsPerDim:
    """Evaluates the bound on the first `num` examples of `source`, by default all, on all devices of all processes.

    The noise of example i depends on (seed, i) only. With `times`, that number of random t is evaluated per example
    instead of all T - 1: unbiased, and faster in proportion. With `visits`, the times that a sampler visits, the bound
    is that of the model with these steps. The terms are kept in the folder `keep` as they are computed, and resumed
    from there; `keep` is required if there are several processes, which must all call this function. Raises ValueError
    unless `times` is None or in 1..T-1, and for visits with a network that outputs the variance of single steps.
    """
    total = len(source) if num is None else min(num, len(source))
    work = bound_work(run, source, total, times, min(batch_size, total), seed, visits)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory())) if keep is None else keep
        return summarize(run.experiment, list(kept(work, folder, reporter)), whole=times is None and visits is None)


def bound_work(
    run: Run,
    source: Sequence,
    num: int,
    times: int | None,
    batch_size: int,
    seed: int,
    visits: np.ndarray | None = None,
) -> Work:
    """The terms of the bound of the first `num` examples, in nats and in squared units of x_0. The results are

        parts       [chunk, 5]: the fields prior, chain (summed), decoder, fixed and null of `losses.Bound`
        chain       [times]: the sum over the examples of each chain term, in the order of the times
        distortion  [times + 1]: the sum over the examples of each squared error of x_0, in this order and then at t = 1

    `times`, `visits` and the errors are those of `bits_per_dim`.
    """
    num_steps, bound = run.experiment.process.schedule.num_steps, bound_fn(run.experiment)
    if times is not None and not 1 <= times < num_steps:
        raise ValueError(f"--times must be between 1 and {num_steps - 1}, got {times}")
    if visits is not None and run.experiment.parameterization.single_steps and np.any(np.diff(visits) != -1):
        raise ValueError(
            f"--steps {len(visits) - 1}: the variance that this network outputs holds for steps from t to t - 1 only: "
            "add --variance analytic"
        )

    def one(params: Params, batch_keys: jax.Array, batch: Batch) -> Bound:
        drawn = (None, None) if times is None else draw_times(batch_keys, times, num_steps)
        return bound(params, batch_keys, batch, *drawn, visits)

    def result(terms: Any) -> Result:
        parts = np.stack([terms.prior, terms.chain.sum(axis=1), terms.decoder, terms.fixed, terms.null], axis=1)
        return {"parts": parts, "chain": terms.chain.sum(axis=0), "distortion": terms.distortion.sum(axis=0)}

    return over_examples(run, source, num, batch_size, seed, one, result)


def over_examples(
    run: Run,
    source: Sequence,
    num: int,
    batch_size: int,
    seed: int,
    one: Callable[[Params, jax.Array, Batch], Any],
    result: Callable[..., Result],
) -> Work:
    """The work ``result(one(params, keys, batch))`` for the first `num` examples of the source.

    `one` returns arrays [batch, ...], which `result` receives as float64, without those that only fill the last batch.
    """

    def computed(params: Params, chunk: Any) -> Any:
        first, batch = chunk
        return one(params, keys(seed, batch_size, first, EVALUATE), batch)

    def chunk(first: int) -> Any:
        rows = np.arange(first, first + batch_size) % num
        return np.int32(first), load(source, rows.tolist())

    def of_float64(output: Any) -> Result:
        return result(jax.tree.map(lambda x: np.asarray(x, np.float64), output))

    return on_devices(num, batch_size, computed, run.params, chunk, of_float64)


def draw_times(batch_keys: jax.Array, count: int, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """Draws `count` of the t in 2..T for each example; returns them and the weights of their terms, [count, batch].

    The density of t is proportional to 1/t, roughly as the terms fall with t, so that the few large terms are not
    missed. The t are stratified: one in each of `count` equal parts of the density, with one uniform shift per example.
    """
    t = np.arange(2, num_steps + 1)
    density = 1 / t / np.sum(1 / t)
    shift = jax.vmap(jax.random.uniform)(fold(batch_keys, num_steps + 1))  # bound folds in 1..T
    fraction = (jnp.arange(count)[:, None] + shift[None]) / count
    chosen = jnp.searchsorted(jnp.asarray(np.cumsum(density)[:-1], jnp.float32), fraction, side="right")
    return jnp.asarray(t, jnp.int32)[chosen], jnp.asarray(1 / density / count, jnp.float32)[chosen]


def summarize(experiment: Experiment, results: Sequence[Result], whole: bool) -> BitsPerDim:
    """The estimates from the results of `bound_work`; `whole` is whether all t were evaluated."""
    per_dim, per_pixel, pixels = units(experiment)
    parts = np.concatenate([result["parts"] for result in results])
    chains, distortions = (np.sum([result[name] for result in results], axis=0) for name in ("chain", "distortion"))
    prior, chain, decoder, fixed, null = parts.T
    bits = {"total": prior + chain + decoder, "prior": prior, "chain": chain, "decoder": decoder}
    bound, count = -(prior + chain + fixed), len(parts)
    rate = distortion = None
    if whole:
        rate = np.cumsum(np.concatenate([prior.mean(keepdims=True), chains / count])) * per_dim
        if experiment.encoding.unit is not None:
            distortion = experiment.encoding.unit * np.sqrt(distortions / count)
    return BitsPerDim(
        **{name: mean_and_error(values * per_dim) for name, values in bits.items()},
        num_examples=count,
        times=len(chains),
        K=mean_and_error(bound * per_pixel),
        K_over_null=mean_and_error((bound + null) * per_pixel),
        pixels=pixels,
        rate=rate,
        distortion=distortion,
    )


def units(experiment: Experiment) -> tuple[float, float, int]:
    """(factor from nats per example to bits/dim, factor from nats per example to bits per pixel, number of pixels)."""
    shape = experiment.data.image_shape
    pixels = math.prod(shape[:2]) if len(shape) == 3 else 1
    return 1 / (math.prod(shape) * math.log(2)), 1 / (pixels * math.log(2)), pixels


def mean_and_error(values: Any) -> Estimate:
    """(mean, standard error) of the values; the error is None for a single value."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), error


def importance_work(run: Run, source: Sequence, num: int, chains: int, batch_size: int, seed: int) -> Work:
    """Estimates log p(x_0) of each of the first `num` examples by `chains` forward chains, in nats (2015, Eq. 9).

    The expectation is a lower bound, which rises to log p(x_0) with the number of chains: see `losses.log_likelihood`.
    The results are {"nats": [chunk]}.
    """

    def one(made: Experiment, weights: Params, key: jax.Array, x_0: jax.Array, label: jax.Array | None) -> jax.Array:
        condition = None if label is None else label[None]
        kernel = samplers.reverse(made.parameterization, network_fn(made, weights), condition)
        return losses.log_likelihood(key, made.process, kernel, x_0[None], chains)[0]

    return over_examples(run, source, num, batch_size, seed, by_example(run, one), lambda nats: {"nats": nats})


def entropy_work(run: Run, source: Sequence, num: int, times: Sequence[int], batch_size: int, seed: int) -> Work:
    """Lower and upper bounds on H_q(X^{t-1} | X^t) at `times`, in nats per example (2015, Eq. 24).

    The results are {"bounds": [chunk, len(times), 2]}.
    """

    def one(made: Experiment, weights: Params, key: jax.Array, x_0: jax.Array, label: jax.Array | None) -> jax.Array:
        bounds = [losses.entropy_bounds(jax.random.fold_in(key, t), made.process, x_0[None], t) for t in times]
        return jnp.stack([jnp.stack([jnp.broadcast_to(x, (1, *x_0.shape)).sum() for x in pair]) for pair in bounds])

    return over_examples(run, source, num, batch_size, seed, by_example(run, one), lambda bounds: {"bounds": bounds})


def by_example(run: Run, one: Callable[..., jax.Array]) -> Callable[[Params, jax.Array, Batch], jax.Array]:
    """The function of a batch that stacks ``one(experiment, weights, key, x_0, label)`` of its examples."""

    def all_of(params: Params, batch_keys: jax.Array, batch: Batch) -> jax.Array:
        made, weights = unpack(run.experiment, params)
        encode_keys, own_keys = (fold(batch_keys, number) for number in (0, 1))
        x_0 = made.encoding.encode(encode_keys, batch["image"])
        label = batch.get("label") if made.num_classes else None
        return jax.vmap(lambda key, x, y: one(made, weights, key, x, y))(own_keys, x_0, label)

    return all_of
