"""Editing of images: RePaint, SDEdit and spherical interpolation of latents."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key, Num

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.guidance.products import inpaint
from ddpm_jax.diffusion.samplers.walk import rising, sample
from ddpm_jax.diffusion.types import Process, Sampler


def repaint(
    sampler: Sampler, process: Process, known: Float[Array, "batch *shape"], mask: Bool[Array, "*shape"]
) -> Sampler:
    """RePaint: inpainting that goes back and forth, for the times of `repaint_times` (Lugmayr et al. 2022, Alg. 1).

        down:  x_s ~ q(x_s | known) where mask else step(x_t),    up:  x_s ~ q(x_s | x_t)

    `mask` is true where `known` is known. The sampler should be a stochastic one, such as `samplers.ddpm`.
    """
    return rising(process, inpaint(sampler, process, known, mask, noised=True))


def repaint_times(
    times: Num[np.ndarray, " falling"], jump: int = 10, resamples: int = 10
) -> Num[np.ndarray, " visits"]:
    """Falling times in which RePaint goes back up by `jump` steps, each stretch done `resamples` times in all.

    Lugmayr et al. 2022, Section 4.2, where j is `jump` and r is `resamples`. A jump up starts at the times with
    numbers 1, 1 + j, 1 + 2 j, .. counted from the data, which has number 0, where at least j times are above. With 250
    steps and j = r = 10 there are 4,571 visits: 2,410 steps down, each with a call of the network, and 2,160 up. With
    r = 1 the times remain as they are. Raises ValueError unless both numbers are at least 1.
    """
    for name, value in (("jump", jump), ("resamples", resamples)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    above, visits = len(times) - 1, [len(times) - 1]
    left = dict.fromkeys(range(1, above - jump + 1, jump), resamples - 1)
    while visits[-1] > 0:
        if left.get(visits[-1], 0):
            left[visits[-1]] -= 1
            visits += range(visits[-1] + 1, visits[-1] + jump + 1)
        visits.append(visits[-1] - 1)
    return np.asarray(times)[above - np.asarray(visits)]


def sdedit(
    keys: Key[Array, " batch"],
    sampler: Sampler,
    process: Process,
    guide: Float[Array, "batch *shape"],
    times: Num[ArrayLike, " visits"],
) -> Float[Array, "batch *shape"]:
    """SDEdit: noise is added to the guide, and taken out again by the sampler (Meng et al. 2022, Algorithm 1).

        x_t0 ~ q(x_t0 | guide),    x_0 = the sampler's result from x_t0,    t0 = times[0]

    The larger t0, the closer the result to the data and the further from the guide, which it is for t0 = 0. Folds 0
    into the keys for the noise; `part_from` selects the times.
    """
    x = process.marginal(guide, jnp.asarray(times)[0]).sample(fold(keys, 0))
    return sample(keys, sampler, x, times)


def part_from(times: Num[np.ndarray, " falling"], strength: float) -> Num[np.ndarray, " visits"]:
    """The falling times that are at most `strength` times the first: (0,) at least.

    Raises ValueError for a strength outside [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"--strength must lie in [0, 1], got {strength}")
    times = np.asarray(times)
    return times[times <= strength * times[0]]


def slerp(
    start: Float[Array, "batch *shape"], end: Float[Array, "batch *shape"], share: Float[ArrayLike, "*batch"]
) -> Float[Array, "batch *shape"]:
    """Spherical interpolation of x_T (Song et al. 2021, Appendix D.5, Eq. 67).

        sin((1 - share) angle) / sin(angle) start + sin(share angle) / sin(angle) end

    `angle` is that between the two examples as vectors; `share`, in [0, 1], is a scalar or one per example. Two
    vectors of the same length give vectors of this length. Where they are parallel the interpolation is linear.
    """
    flat = [x.reshape(len(x), -1) for x in (start, end)]
    dots = [(a * b).sum(axis=1) for a, b in ((flat[0], flat[1]), (flat[0], flat[0]), (flat[1], flat[1]))]
    angle = jnp.arccos(jnp.clip(dots[0] / jnp.sqrt(dots[1] * dots[2]), -1, 1))
    angle = angle.reshape((-1,) + (1,) * (start.ndim - 1))
    share = jnp.asarray(share).reshape(jnp.shape(share) + (1,) * (start.ndim - 1 if jnp.ndim(share) else 0))
    parallel = angle < 1e-3
    sine = jnp.where(parallel, 1.0, jnp.sin(angle))
    weights = (jnp.where(parallel, each, jnp.sin(each * angle) / sine) for each in (1 - share, share))
    return next(weights) * start + next(weights) * end
