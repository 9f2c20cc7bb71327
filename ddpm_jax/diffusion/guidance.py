"""Guidance by labels or a second network; chains multiplied by a second distribution (2015, Section 2.5)."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ddpm_jax.diffusion.distributions import Normal, fold
from ddpm_jax.diffusion.schedules import signal_to_noise
from ddpm_jax.diffusion.types import Kernel, Network, Process, Sampler

LogGradient = Callable[[Array, ArrayLike], Array]
"""``log_gradient(x, s)`` -> the gradient of log r_s at x, element by element; for bits log r_s(1) - log r_s(0)."""

Scale = ArrayLike | Callable[[ArrayLike], ArrayLike]
"""The strength of guidance: a number, one for each example, [batch], or a function of t that returns either."""


def classifier_free(network: Network, scale: Scale, null: int, channels: int | None = None) -> Network:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6, where the weight is w = scale - 1).

        output = free + scale (conditional - free),    free = network(x_t, t, null)

    `null` is the label that means "no label", the number of classes. Scale 1 is the network itself (and costs one call,
    if it is a Python number), 0 the network without a label. Both outputs are computed in one call with twice the
    batch. The formula holds for every parameterization that is affine in the output; `channels` is the number of output
    channels that it applies to, by default all: a variance, in the channels after these, remains the conditional one.
    The guided network raises ValueError without a label.
    """
    if isinstance(scale, int | float) and scale == 1:
        return network

    def guided(x_t: Array, t: ArrayLike, condition: Array | None) -> Array:
        if condition is None:
            raise ValueError("guidance needs a label for each example")
        labels = jnp.concatenate([condition, jnp.full_like(condition, null)])
        times = jnp.concatenate([jnp.asarray(t)] * 2) if jnp.ndim(t) else t
        conditional, free = jnp.split(network(jnp.concatenate([x_t, x_t]), times, labels), 2)
        return _away(conditional, free, _strength(scale, t, conditional.ndim), channels)

    return guided


def autoguidance(network: Network, guide: Network, scale: Scale, channels: int | None = None) -> Network:
    """Guidance by a worse version of the network, such as one trained for a shorter time (Karras et al. 2024, Eq. 3).

        output = guide(x_t, t) + scale (network(x_t, t) - guide(x_t, t))

    Works without labels. The guide has the same parameterization; `channels` is that of `classifier_free`.
    """

    def guided(x_t: Array, t: ArrayLike, condition: Array | None) -> Array:
        output = network(x_t, t, condition)
        return _away(output, guide(x_t, t, condition), _strength(scale, t, output.ndim), channels)

    return guided


def limited(scale: ArrayLike, process: Process, low: float, high: float) -> Callable[[ArrayLike], Array]:
    """The scale where low < sigma_t / alpha_t <= high, and 1 elsewhere (Kynkaanniemi et al. 2024, Eq. 5)."""

    def at(t: ArrayLike) -> Array:
        level = 1 / jnp.sqrt(signal_to_noise(process.schedule, t))
        return jnp.where((low < level) & (level <= high), scale, 1.0)

    return at


def _strength(scale: Scale, t: ArrayLike, ndim: int) -> Array:
    """The scale at t, with trailing axes of size one up to `ndim` if it is one for each example."""
    value = jnp.asarray(scale(t) if callable(scale) else scale)
    return value.reshape(value.shape + (1,) * (ndim - value.ndim)) if value.ndim else value


def _away(output: Array, other: Array, scale: Array, channels: int | None) -> Array:
    """``other + scale (output - other)`` in the first channels; the others are those of `output`."""
    guided = other + scale * (output - other)
    if channels is None or channels == output.shape[-1]:
        return guided
    return jnp.concatenate([guided[..., :channels], output[..., channels:]], axis=-1)


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
