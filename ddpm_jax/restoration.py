"""What Sohl-Dickstein et al. 2015 look at in a trained model: both chains, and the chain times a second distribution.

All show test examples that the seed chooses, and return them as the encoding decodes them: images as bytes, points as
floats.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key

from ddpm_jax.data import load
from ddpm_jax.diffusion import Process, guidance, samplers
from ddpm_jax.diffusion.distributions import Bernoulli, Normal, fold
from ddpm_jax.diffusion.samplers import Kernel, Sampler
from ddpm_jax.experiment import Run, bind, keys, resolved, start
from ddpm_jax.generation import checked, walk_fn

Missing = Literal["centre", "left", "right", "top", "bottom"]


class Chain(NamedTuple):
    """Both chains at some times, each [times, num, ...]."""

    forward: np.ndarray
    """Test examples as they are diffused, with the same noise at all t."""
    reverse: np.ndarray
    """Samples on their way from x_T to x_0."""
    drift: np.ndarray
    """f_mu(x_t, t) - x_t of these samples, at t = 2 where x_0 is shown, in units of x_0: the last step may be fixed."""


def chain(run: Run, times: Sequence[int], num: int = 8, seed: int = 0) -> Chain:
    """The forward chain from test examples, the reverse chain from the prior, and its drift (2015: Figures 1 and 2)."""
    (experiment, weights), walk = resolved(run.experiment, run.params), walk_fn(run)
    process, decode, T = experiment.process, experiment.codec.decode, experiment.process.schedule.num_steps
    batch_keys, order = keys(seed, num), np.argsort(-np.asarray(checked(run, times, least=0)))
    x_0, label = _examples(run, batch_keys, seed)
    kernel = samplers.reverse(experiment.parameterization, bind(experiment, weights), label)
    noise = process.marginal(x_0, 1).noise(fold(batch_keys, T + 1))
    forward = [x_0 if t == 0 else process.marginal(x_0, t).push(noise) for t in times]
    low = min(2, T)
    reverse, drift, x, above = {}, {}, start(experiment, batch_keys), T
    for t in (times[place] for place in order):
        x, above = walk(run.params, batch_keys, x, above, t, label), t
        reverse[t], drift[t] = decode(x), kernel(x, max(t, low), max(t, low) - 1).mode() - x
    rows = (list(map(decode, forward)), [reverse[t] for t in times], [drift[t] for t in times])
    return Chain(*(np.stack(row) for row in rows))


class Restored(NamedTuple):
    """Test examples, what is left of them, and a draw from the chain times what that tells; each [num, ...]."""

    clean: np.ndarray
    seen: np.ndarray
    restored: np.ndarray


def denoise(run: Run, num: int = 8, seed: int = 0, noise: float | None = None, annealed: bool = False) -> Restored:
    """Test examples with noise, restored (2015: Section 2.5 and Figure 3).

    `noise` is the deviation of what is added to x_0, by default 1, or of bits the probability that each is flipped, by
    default 0.1. Each step of the chain is multiplied with r(x) = p(seen | x_0 = x), or with r to the power (T - s) / T;
    `guidance.tilted` tells what that recipe samples from: many steps hold a flipped bit against the chain, so that some
    stay. Raises ValueError for a noise that is none.
    """
    experiment, _ = resolved(run.experiment, run.params)
    process, T, batch_keys = experiment.process, experiment.process.schedule.num_steps, keys(seed, num)
    x_0, label = _examples(run, batch_keys, seed)
    of_family = _flipped if isinstance(process.prior(x_0.shape), Bernoulli) else _noised
    seen, perturbed = of_family(fold(batch_keys, T + 1), x_0, noise, T if annealed else None)
    x_T = perturbed(lambda x_t, t, s: process.prior(x_0.shape))(x_0, T, T).sample(fold(batch_keys, 0))
    restored = _walked(run, batch_keys, x_T, label, lambda process, kernel: samplers.ancestral(perturbed(kernel)))
    return _shown(run, x_0, seen, restored)


def inpaint(run: Run, num: int = 8, seed: int = 0, missing: Missing = "centre", noised: bool = False) -> Restored:
    """Test examples with a part replaced by noise, and filled in (2015: Section 2.5 and Figure 5).

    What is known is held clean at every t, as in the paper, or `noised` to the level of each. "centre" is the middle
    40 % of each side; the others are halves.
    """
    experiment, _ = resolved(run.experiment, run.params)
    batch_keys = keys(seed, num)
    x_0, label = _examples(run, batch_keys, seed)
    known = jnp.asarray(~hole(x_0.shape[1:], missing))
    seen = jnp.where(known[None], x_0, start(experiment, batch_keys))

    def filling(process: Process, kernel: Kernel) -> Sampler:
        return guidance.inpaint(samplers.ancestral(kernel), process, x_0, known, noised)

    x_T = start(experiment, batch_keys) if noised else seen
    return _shown(run, x_0, seen, _walked(run, batch_keys, x_T, label, filling))


def hole(shape: tuple[int, ...], missing: Missing) -> Bool[np.ndarray, "*shape"]:
    """True where an example of this shape is missing; of points and sequences what comes first is left, and top."""
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


Perturb = Callable[[Kernel], Kernel]


def _noised(batch_keys: Array, x_0: Array, noise: float | None, steps: int | None) -> tuple[Array, Perturb]:
    """x_0 with Gaussian noise, and how that is multiplied into a kernel; annealed over so many steps, if any."""
    deviation = 1.0 if noise is None else noise
    if not deviation > 0:
        raise ValueError(f"--noise {deviation}: a deviation is above 0")
    variance = jnp.full_like(x_0, deviation**2)
    r = Normal(Normal(x_0, variance).sample(batch_keys), variance)
    factor = guidance.annealed(r, steps) if steps else lambda s: r
    return r.mean, partial(guidance.multiplied, factor=factor)


def _flipped(batch_keys: Array, x_0: Array, noise: float | None, steps: int | None) -> tuple[Array, Perturb]:
    """The same for bits, each flipped with a probability."""
    share = 0.1 if noise is None else noise
    if not 0 < share < 0.5:
        raise ValueError(f"--noise {share}: the probability of a flip lies between 0 and 0.5")
    seen = Bernoulli(x_0 * (1 - share) + (1 - x_0) * share, x_0 * share + (1 - x_0) * (1 - share)).sample(batch_keys)
    gradient = (2 * seen - 1) * np.log((1 - share) / share)
    return seen, partial(guidance.tilted, evidence=lambda x, s: gradient * (1 - s / steps if steps else 1.0))


def _examples(run: Run, batch_keys: Key[Array, " num"], seed: int) -> tuple[Array, Array | None]:
    """x_0 and labels of as many test examples, with replacement where there are too few."""
    experiment, source = run.experiment, run.experiment.data.open("test")
    rows = np.random.default_rng(seed).choice(len(source), len(batch_keys), replace=len(batch_keys) > len(source))
    stored = load(source, rows.tolist())
    x_0 = experiment.codec.encode(
        fold(batch_keys, experiment.process.schedule.num_steps + 2), jnp.asarray(stored["image"])
    )
    return x_0, jnp.asarray(stored["label"]) if experiment.num_classes else None


def _walked(
    run: Run, batch_keys: Array, x_T: Array, label: Array | None, make: Callable[[Process, Kernel], Sampler]
) -> Array:
    """From x_T to x_0 by the sampler that is made of the trained kernel."""
    T = run.experiment.process.schedule.num_steps

    @jax.jit
    def walk(params, batch_keys, x_T, label):
        experiment, weights = resolved(run.experiment, params)
        kernel = samplers.reverse(experiment.parameterization, bind(experiment, weights), label)
        return samplers.sample(batch_keys, make(experiment.process, kernel), x_T, samplers.times(T, T))

    return walk(run.params, batch_keys, x_T, label)


def _shown(run: Run, *rows: Array) -> Restored:
    return Restored(*(np.asarray(run.experiment.codec.decode(x)) for x in rows))
