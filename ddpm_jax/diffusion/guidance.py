"""Multiplying a trained chain with a second distribution r(x): denoising, inpainting (2015, Section 2.5)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ddpm_jax.diffusion.distributions import Normal, fold
from ddpm_jax.diffusion.process import Process
from ddpm_jax.diffusion.samplers import Kernel, Sampler

Evidence = Callable[[Array, ArrayLike], Array]
"""``(x, s)`` -> the gradient of log r_s at x, element by element; for bits log r(1) - log r(0)."""


def tilted(kernel: Kernel, evidence: Evidence) -> Kernel:
    """p(x_s | x_t) r_s(x_s), normalised (2015: Eq. 22 and Appendix C).

    Exact for bits. For a Gaussian log r is taken as linear around the mean: the mean moves by the variance times its
    gradient there (Eq. 61); see `multiplied` for an r that is Gaussian itself.

    With the r that the paper takes, the same at all s, the samples are not of p(x_0) r(x_0): every step multiplies, and
    where steps are small the result nears p r^2. Exact would be r_s(x_s) = E[r(x_0) | x_s].
    """

    def product(x_t, t, s):
        dist = kernel(x_t, t, s)
        return dist.tilt(evidence(dist.mode(), s))

    return product


def multiplied(kernel: Kernel, factor: Callable[[ArrayLike], Normal]) -> Kernel:
    """A Gaussian kernel times the Gaussian r_s = ``factor(s)``, normalised exactly (the released code of 2015).

    A factor of infinite variance leaves the kernel as it is.
    """

    def product(x_t, t, s):
        dist: Any = kernel(x_t, t, s)
        r = factor(s)
        variance = 1 / (1 / dist.variance + 1 / r.variance)
        return Normal(variance * (dist.mean / dist.variance + r.mean / r.variance), variance)

    return product


def annealed(r: Normal, num_steps: int) -> Callable[[ArrayLike], Normal]:
    """r to the power (T - s) / T: nothing at s = T, all of it at the data (2015: Section 2.5.2)."""
    return lambda s: r._replace(variance=r.variance * num_steps / (num_steps - jnp.asarray(s, jnp.float32)))


def inpaint(
    sampler: Sampler,
    process: Process,
    known: Float[Array, "batch *shape"],
    mask: Bool[Array, "*shape"],
    noised: bool = False,
) -> Sampler:
    """The sampler with the pixels under the mask held at `known`: r is a point there and constant elsewhere.

    2015 holds them clean at every t (Section 2.5 and Figure 5); `noised` diffuses them to each step's own level, as
    the network has seen them in training.
    """

    def hold(keys: Array, x: Array, s: ArrayLike) -> Array:
        there = (
            jnp.where(jnp.asarray(s) > 0, process.marginal(known, s).sample(fold(keys, 0)), known) if noised else known
        )
        return jnp.where(mask[None], there, x)

    def step(keys: Array, x_t: Array, memory: Any, t: Array, s: Array) -> tuple[Array, Any]:
        x_s, memory = sampler.step(keys, x_t, memory, t, s)
        return hold(keys, x_s, s), memory

    return Sampler(init=sampler.init, step=step)
