"""Guidance by labels, or by a second network."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.schedules import signal_to_noise
from ddpm_jax.diffusion.types import Network, Process

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
        return _away(conditional, free, strength(scale, t, conditional.ndim), channels)

    return guided


def autoguidance(network: Network, guide: Network, scale: Scale, channels: int | None = None) -> Network:
    """Guidance by a worse version of the network, such as one trained for a shorter time (Karras et al. 2024, Eq. 3).

        output = guide(x_t, t) + scale (network(x_t, t) - guide(x_t, t))

    Works without labels. The guide has the same parameterization; `channels` is that of `classifier_free`.
    """

    def guided(x_t: Array, t: ArrayLike, condition: Array | None) -> Array:
        output = network(x_t, t, condition)
        return _away(output, guide(x_t, t, condition), strength(scale, t, output.ndim), channels)

    return guided


def limited(
    scale: ArrayLike, process: Process, low: ArrayLike, high: ArrayLike, outside: float = 1.0
) -> Callable[[ArrayLike], Array]:
    """The scale where low < sigma_t / alpha_t <= high, and `outside` elsewhere (Kynkaanniemi et al. 2024, Eq. 5).

    `outside` is the scale that is no guidance: 1 for labels and a second network, 0 for a classifier.
    """

    def at(t: ArrayLike) -> Array:
        level = 1 / jnp.sqrt(signal_to_noise(process.schedule, t))
        return jnp.where((low < level) & (level <= high), scale, outside)

    return at


def strength(scale: Scale, t: ArrayLike, ndim: int) -> Array:
    """The scale at t, with trailing axes of size one up to `ndim` if it is one for each example."""
    value = jnp.asarray(scale(t) if callable(scale) else scale)
    return value.reshape(value.shape + (1,) * (ndim - value.ndim)) if value.ndim else value


def _away(output: Array, other: Array, scale: Array, channels: int | None) -> Array:
    """``other + scale (output - other)`` in the first channels; the others are those of `output`."""
    first, second = output[..., :channels], other[..., :channels]
    guided = second + scale * (first - second)
    if channels is None or channels == output.shape[-1]:
        return guided
    return jnp.concatenate([guided, output[..., channels:]], axis=-1)
