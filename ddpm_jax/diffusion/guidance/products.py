"""Chains multiplied by a second distribution (2015, Section 2.5), and inpainting."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ddpm_jax.diffusion.distributions import Normal, fold
from ddpm_jax.diffusion.types import Kernel, Process, Sampler

LogGradient = Callable[[Array, ArrayLike], Array]
"""``log_gradient(x, s)`` -> the gradient of log r_s at x, element by element; for bits log r_s(1) - log r_s(0)."""


def tilted(kernel: Kernel, log_gradient: LogGradient) -> Kernel:
    """The kernel p(x_s | x_t) multiplied by r_s(x_s) and normalized (2015, Eq. 22, Eq. 61 and Appendix C).

        p(x_s | x_t) r_s(x_s) / Z,    for a Gaussian: new mean = mean + variance * gradient of log r_s at the mean

    Exact for bits. For a Gaussian, log r_s is linearized around the mean; for a Gaussian r see `multiplied`.

    Warning: if r_s is the same r at every s, as in the paper, the samples do not follow p(x_0) r(x_0). Each step
    multiplies by r once more, and for small steps the result approaches p(x_0) r(x_0)^2. The samples follow
    p(x_0) r(x_0) if r_s(x_s) = E[r(x_0) | x_s].
    """

    def product(x_t, t, s):
        dist = kernel(x_t, t, s)
        return dist.tilt(log_gradient(dist.mode(), s))

    return product


def multiplied(kernel: Kernel, factor: Callable[[ArrayLike], Normal]) -> Kernel:
    """A Gaussian kernel multiplied by the Gaussian r_s = ``factor(s)``, exactly (released code of 2015).

        1 / variance = 1 / variance_p + 1 / variance_r,    mean / variance = mean_p / variance_p + mean_r / variance_r

    A factor of infinite variance does not change the kernel, and no factor changes a kernel of variance 0, not even one
    of variance 0. The warning of `tilted` holds here too.
    """

    def product(x_t, t, s):
        dist: Any = kernel(x_t, t, s)
        r = factor(s)
        # the weights of the two means; neither divides by a variance of the kernel, which may be 0
        other = jnp.where(dist.variance + r.variance == 0, 1.0, r.variance)
        kept, moved = 1 / (1 + dist.variance / other), dist.variance / (dist.variance + other)
        return Normal(kept * dist.mean + moved * r.mean, kept * dist.variance)

    return product


def annealed(r: Normal, num_steps: int) -> Callable[[ArrayLike], Normal]:
    """The factor r_s = r^((T - s) / T), up to normalization: 1 at s = T, r at s = 0 (2015, Section 2.5.2).

    `num_steps` is T. Multiplies the variance of `r` by T / (T - s). The result is the `factor` of `multiplied`.
    """

    def factor(s):
        share = (num_steps - jnp.asarray(s, jnp.float32)) / num_steps
        return r._replace(variance=jnp.where(share == 0, jnp.inf, r.variance / share))

    return factor


def inpaint(
    sampler: Sampler,
    process: Process,
    known: Float[Array, "batch *shape"],
    mask: Bool[Array, "*shape"],
    noised: bool = False,
) -> Sampler:
    """A sampler that replaces the elements where `mask` is true by those of `known` after each step.

        x_s = known where mask else step(x_t),    or with `noised`:    x_s ~ q(x_s | known) where mask else step(x_t)

    The paper inserts the clean values at every s (2015, Section 2.5 and Figure 5). With `noised` they have the noise
    level of the network's training data.
    """

    def known_at(s: Array, keys: Array) -> Array:
        if not noised:
            return known
        return jnp.where(s > 0, process.marginal(known, s).sample(fold(keys, 0)), known)

    def step(keys: Array, x_t: Array, memory: Any, t: Array, s: Array) -> tuple[Array, Any]:
        x_s, memory = sampler.step(keys, x_t, memory, t, s)
        return jnp.where(mask[None], known_at(s, keys), x_s), memory

    return sampler._replace(step=step)
