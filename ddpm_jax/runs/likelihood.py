"""Likelihood of data under a run: the variational bound in its parts, importance sampling, and bounds on entropies."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import load
from ddpm_jax.diffusion import losses, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses import Bound
from ddpm_jax.experiment import Experiment, Run, bound_fn, network_fn, unpack
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.files import whole_file
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


class Tally(NamedTuple):
    """Sums over the examples evaluated so far, in nats and in squared units of x_0."""

    parts: np.ndarray
    """[n, 5]: the fields prior, chain (summed), decoder, fixed and null of `losses.Bound`, for each example."""
    chain: np.ndarray
    """[times]: the sum over the examples of each chain term, in the order of the times."""
    distortion: np.ndarray
    """[times + 1]: the sum over the examples of each squared error of x_0, in the same order and then at t = 1."""

    def plus(self, terms: Bound) -> "Tally":
        """The tally with the terms of another batch added."""
        parts = np.stack([terms.prior, terms.chain.sum(axis=1), terms.decoder, terms.fixed, terms.null], axis=1)
        return Tally(
            np.concatenate([self.parts, parts]),
            self.chain + terms.chain.sum(axis=0),
            self.distortion + terms.distortion.sum(axis=0),
        )


def bits_per_dim(
    run: Run,
    source: Sequence,
    num: int | None = None,
    times: int | None = None,
    batch_size: int = 120,
    seed: int = 0,
    reporter: Reporter | None = None,
    keep: Path | None = None,
) -> BitsPerDim:
    """Evaluates the bound on the first `num` examples of `source`, by default all.

    The noise of example i depends on (seed, i) only. With `times`, that number of random t is evaluated per example
    instead of all T - 1: unbiased, and faster in proportion. The sums are written to the file `keep` after each batch;
    if it exists, the measurement is resumed. Raises ValueError unless `times` is None or in 1..T-1.
    """
    reporter, num_steps = reporter or Reporter(), run.experiment.process.schedule.num_steps
    if times is not None and not 1 <= times < num_steps:
        raise ValueError(f"--times must be between 1 and {num_steps - 1}, got {times}")
    total = len(source) if num is None else min(num, len(source))
    size = min(batch_size, total)
    bound = jax.jit(bound_fn(run.experiment))
    count = num_steps - 1 if times is None else times
    tally = _read_tally(keep, reporter) or Tally(np.zeros((0, 5)), np.zeros(count), np.zeros(count + 1))
    for first in reporter.track(range(len(tally.parts), total, size), "batch"):
        rows = np.arange(first, first + size) % total  # the last batch is padded, so that all have one shape
        batch_keys = keys(seed, size, first, EVALUATE)
        drawn = (None, None) if times is None else _draw_times(batch_keys, times, num_steps)
        terms = jax.device_get(bound(run.params, batch_keys, load(source, rows.tolist()), *drawn))
        tally = tally.plus(jax.tree.map(lambda x, real=total - first: np.asarray(x[:real], np.float64), terms))
        _write_tally(keep, tally)
    return _summarize(run.experiment, tally, whole=times is None)


def _read_tally(path: Path | None, reporter: Reporter) -> Tally | None:
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as arrays:
            return Tally(**arrays)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        reporter.line(f"{path} cannot be read: measuring from the first example again")
        return None


def _write_tally(path: Path | None, tally: Tally) -> None:
    if path is None:
        return
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **tally._asdict())


def _draw_times(batch_keys: jax.Array, count: int, num_steps: int) -> tuple[jax.Array, jax.Array]:
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


def _summarize(experiment: Experiment, tally: Tally, whole: bool) -> BitsPerDim:
    per_dim, per_pixel, pixels = units(experiment)
    prior, chain, decoder, fixed, null = tally.parts.T
    parts = {"total": prior + chain + decoder, "prior": prior, "chain": chain, "decoder": decoder}
    bound, count = -(prior + chain + fixed), len(tally.parts)
    rate = distortion = None
    if whole:
        received = np.concatenate([prior.mean(keepdims=True), tally.chain / count])
        rate = np.cumsum(received) * per_dim
        if experiment.encoding.unit is not None:
            distortion = experiment.encoding.unit * np.sqrt(tally.distortion / count)
    return BitsPerDim(
        **{name: mean_and_error(values * per_dim) for name, values in parts.items()},
        num_examples=count,
        times=len(tally.chain),
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


def importance_sampled(
    run: Run, source: Sequence, num: int, chains: int, batch_size: int, seed: int, reporter: Reporter
) -> np.ndarray:
    """Estimates log p(x_0) of each of the first `num` examples by `chains` forward chains, in nats (2015, Eq. 9).

    The expectation is a lower bound, which rises to log p(x_0) with the number of chains: see `losses.log_likelihood`.
    Returns [num].
    """

    def one(made, weights, key, x_0, label):
        condition = None if label is None else label[None]
        kernel = samplers.reverse(made.parameterization, network_fn(made, weights), condition)
        return losses.log_likelihood(key, made.process, kernel, x_0[None], chains)[0]

    return np.concatenate(list(_by_batches(run, source, num, batch_size, seed, reporter, one)))


def entropy_bounds(
    run: Run, source: Sequence, num: int, times: Sequence[int], batch_size: int, seed: int, reporter: Reporter
) -> np.ndarray:
    """Lower and upper bounds on H_q(X^{t-1} | X^t) at `times`, in nats per example, [len(times), 2] (2015, Eq. 24)."""

    def one(made, weights, key, x_0, label):
        bounds = [losses.entropy_bounds(jax.random.fold_in(key, t), made.process, x_0[None], t) for t in times]
        return jnp.stack([jnp.stack([jnp.broadcast_to(x, (1, *x_0.shape)).sum() for x in pair]) for pair in bounds])

    return np.concatenate(list(_by_batches(run, source, num, batch_size, seed, reporter, one))).mean(axis=0)


def _by_batches(run: Run, source: Sequence, num: int, batch_size: int, seed: int, reporter: Reporter, one: Any):
    """Yields the results of ``one(experiment, weights, key, x_0, label)`` for each example, in batches [batch, ...]."""
    size = min(batch_size, num)

    @jax.jit
    def all_of(params, batch_keys, batch):
        made, weights = unpack(run.experiment, params)
        encode_keys, own_keys = (fold(batch_keys, number) for number in (0, 1))
        x_0 = made.encoding.encode(encode_keys, batch["image"])
        label = batch.get("label") if made.num_classes else None
        return jax.vmap(lambda key, x, y: one(made, weights, key, x, y))(own_keys, x_0, label)

    for first in reporter.track(range(0, num, size), "batch"):
        rows = np.arange(first, first + size) % num
        batch = load(source, rows.tolist())
        yield np.asarray(all_of(run.params, keys(seed, size, first, EVALUATE), batch), np.float64)[: num - first]
