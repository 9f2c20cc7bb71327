"""The studies of Sohl-Dickstein et al. 2015: the forward and the reverse chain, denoising, inpainting.

Each is a function of a trained run. The seed chooses the test examples and their noise. Results are decoded: images and
bits as uint8 over 0..255, points as floats.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from ddpm_jax.data import load
from ddpm_jax.diffusion import Process, guidance, samplers
from ddpm_jax.diffusion.distributions import Bernoulli, Normal, fold
from ddpm_jax.diffusion.types import Kernel, Sampler
from ddpm_jax.experiment import Experiment, network_fn, unpack
from ddpm_jax.sampling import Run, prior_sample
from ddpm_jax.studies.requests import Missing
from ddpm_jax.studies.walk import check_times, encoding_keys, noise_keys, walk
from ddpm_jax.training.keys import keys


class Chain(NamedTuple):
    """The forward and the reverse chain at some times; each array is [times, num, ...]."""

    forward: np.ndarray
    """x_t of the forward chain from test examples, with the same noise at all t."""
    reverse: np.ndarray
    """x_t of the reverse chain from samples of the prior."""
    drift: np.ndarray
    """The mode of p(x_{t-1} | x_t) minus x_t, for x_t of the reverse chain, in units of x_0 (not decoded). At t = 0,
    which has no step, and at t = 1, whose step may be fixed, the kernel for t = 2 is used."""


def chain(run: Run, times: Sequence[int], num: int = 8, seed: int = 0) -> Chain:
    """The forward chain from test examples, the reverse chain from the prior, and its drift (2015, Figures 1 and 2).

    Raises ValueError for a time outside 0..T.
    """
    check_times(run, times, least=0)
    experiment, weights = unpack(run.experiment, run.params)
    batch_keys, decode = keys(seed, num), experiment.encoding.decode
    x_0, label = _test_examples(run, batch_keys, seed)
    kernel = samplers.reverse(experiment.parameterization, network_fn(experiment, weights), label)
    reverse = _reverse_chain(run, batch_keys, label, times)
    first = min(2, experiment.process.schedule.num_steps)
    later = [max(t, first) for t in times]
    return Chain(
        forward=np.stack([decode(x) for x in _forward_chain(experiment, batch_keys, x_0, times)]),
        reverse=np.stack([decode(x) for x in reverse]),
        drift=np.stack([kernel(x, t, t - 1).mode() - x for x, t in zip(reverse, later, strict=True)]),
    )


def _forward_chain(experiment: Experiment, batch_keys: Array, x_0: Array, times: Sequence[int]) -> list[Array]:
    """x_t of the forward chain at these times."""
    noise = experiment.process.marginal(x_0, 1).noise(noise_keys(experiment, batch_keys))
    return [x_0 if t == 0 else experiment.process.marginal(x_0, t).push(noise) for t in times]


def _reverse_chain(run: Run, batch_keys: Array, label: Array | None, times: Sequence[int]) -> list[Array]:
    """x_t of the reverse chain at these times, in one walk from T down."""
    parts, above = walk(run), run.experiment.process.schedule.num_steps
    state, found = parts.start(prior_sample(run.experiment, batch_keys), label), {}
    for t in sorted(set(times), reverse=True):
        state, above = parts.advance(batch_keys, state, above, t, label), t
        found[t] = state[0]
    return [found[t] for t in times]


class Restored(NamedTuple):
    """Test examples, their corrupted versions, and the restorations; each [num, ...]."""

    clean: np.ndarray
    corrupted: np.ndarray
    restored: np.ndarray


def denoise(run: Run, num: int = 8, seed: int = 0, noise: float | None = None, annealed: bool = False) -> Restored:
    """Test examples, the same with noise, and restored by the reverse chain (2015, Section 2.5 and Figure 3).

    `noise` is the standard deviation of the noise added to x_0, by default 1; for bits it is the probability that a bit
    is flipped, by default 0.1. The kernel of each step to s is multiplied by r(x) = p(corrupted | x_0 = x), or by r to
    the power (T - s) / T if `annealed`. The result is not a sample of the posterior p(x_0 | corrupted): see
    `guidance.tilted`.

    Raises ValueError for a deviation that is not positive, or a probability outside (0, 0.5).
    """
    experiment, _ = unpack(run.experiment, run.params)
    process, T, batch_keys = experiment.process, experiment.process.schedule.num_steps, keys(seed, num)
    x_0, label = _test_examples(run, batch_keys, seed)
    corrupt = _with_flips if isinstance(process.prior(x_0.shape), Bernoulli) else _with_noise
    corrupted, times_r = corrupt(noise_keys(experiment, batch_keys), x_0, noise, T if annealed else None)
    x_T = times_r(lambda x_t, t, s: process.prior(x_0.shape))(x_0, T, T).sample(fold(batch_keys, 0))
    restored = _sample(run, batch_keys, x_T, label, lambda process, kernel: samplers.ancestral(times_r(kernel)))
    return _decoded(run, x_0, corrupted, restored)


def inpaint(run: Run, num: int = 8, seed: int = 0, missing: Missing = "centre", noised: bool = False) -> Restored:
    """Test examples, the same with a missing part, and filled in by the reverse chain (2015, Section 2.5 and Figure 5).

    The missing part of a corrupted example is a sample of the prior. The known part is held at its clean values at
    every t, as in the paper, or at samples of q(x_t | x_0) if `noised`. "centre" is the middle 40 % of each side; the
    other parts are halves.
    """
    batch_keys = keys(seed, num)
    x_0, label = _test_examples(run, batch_keys, seed)
    noise = prior_sample(run.experiment, batch_keys)
    known = jnp.asarray(~hole(x_0.shape[1:], missing))
    corrupted = jnp.where(known[None], x_0, noise)

    def filling(process: Process, kernel: Kernel) -> Sampler:
        return guidance.inpaint(samplers.ancestral(kernel), process, x_0, known, noised)

    restored = _sample(run, batch_keys, noise if noised else corrupted, label, filling)
    return _decoded(run, x_0, corrupted, restored)


def hole(shape: tuple[int, ...], missing: Missing) -> Bool[np.ndarray, "*shape"]:
    """The mask of the missing part of an example of this shape: True where it is missing.

    In points and sequences "left" and "top" are the first half, "right" and "bottom" the second half.
    """
    sides = shape[:2] if len(shape) == 3 else shape[:1]
    inside = [slice(None)] * len(sides)
    if missing == "centre":
        inside = [slice(round(0.3 * side), max(round(0.7 * side), round(0.3 * side) + 1)) for side in sides]
    else:
        axis = 0 if missing in ("top", "bottom") else len(sides) - 1
        half = sides[axis] // 2
        inside[axis] = slice(half) if missing in ("top", "left") else slice(half, None)
    empty = np.zeros(shape, bool)
    empty[tuple(inside)] = True
    return empty


TimesR = Callable[[Kernel], Kernel]
"""``times_r(kernel)`` -> the kernel multiplied by r, as in `denoise`."""


def _with_noise(batch_keys: Array, x_0: Array, noise: float | None, anneal_over: int | None) -> tuple[Array, TimesR]:
    """x_0 with Gaussian noise, and the function that multiplies a kernel by r; `anneal_over` is T, or None."""
    deviation = 1.0 if noise is None else noise
    if not deviation > 0:
        raise ValueError(f"--noise, a standard deviation, must be above 0, got {deviation}")
    variance = jnp.full_like(x_0, deviation**2)
    r = Normal(Normal(x_0, variance).sample(batch_keys), variance)
    factor = guidance.annealed(r, anneal_over) if anneal_over else lambda s: r
    return r.mean, partial(guidance.multiplied, factor=factor)


def _with_flips(batch_keys: Array, x_0: Array, noise: float | None, anneal_over: int | None) -> tuple[Array, TimesR]:
    """x_0 with flipped bits, and the function that multiplies a kernel by r; `anneal_over` is T, or None."""
    flip = 0.1 if noise is None else noise
    if not 0 < flip < 0.5:
        raise ValueError(f"--noise, the probability that a bit is flipped, must lie in (0, 0.5), got {flip}")
    corrupted = Bernoulli(x_0 * (1 - flip) + (1 - x_0) * flip, x_0 * flip + (1 - x_0) * (1 - flip)).sample(batch_keys)
    log_odds = (2 * corrupted - 1) * np.log((1 - flip) / flip)

    def log_gradient(x, s):
        return log_odds * (1 - s / anneal_over if anneal_over else 1.0)

    return corrupted, partial(guidance.tilted, log_gradient=log_gradient)


def _test_examples(run: Run, batch_keys: Key[Array, " num"], seed: int) -> tuple[Array, Array | None]:
    """x_0 and labels of test examples, one per key, chosen by the seed; repeated if there are fewer."""
    experiment, source = run.experiment, run.experiment.data.open("test")
    rows = np.random.default_rng(seed).choice(len(source), len(batch_keys), replace=len(batch_keys) > len(source))
    stored = load(source, rows.tolist())
    x_0 = experiment.encoding.encode(encoding_keys(experiment, batch_keys), jnp.asarray(stored["image"]))
    return x_0, jnp.asarray(stored["label"]) if experiment.num_classes else None


def _sample(
    run: Run, batch_keys: Array, x_T: Array, label: Array | None, make: Callable[[Process, Kernel], Sampler]
) -> Array:
    """x_0 from x_T, by the sampler that `make` returns for the process and the trained kernel."""
    T = run.experiment.process.schedule.num_steps

    @jax.jit
    def sample(params, batch_keys, x_T, label):
        experiment, weights = unpack(run.experiment, params)
        kernel = samplers.reverse(experiment.parameterization, network_fn(experiment, weights), label)
        return samplers.sample(batch_keys, make(experiment.process, kernel), x_T, samplers.times(T, T))

    return sample(run.params, batch_keys, x_T, label)


def _decoded(run: Run, *rows: Array) -> Restored:
    return Restored(*(np.asarray(run.experiment.encoding.decode(x)) for x in rows))
