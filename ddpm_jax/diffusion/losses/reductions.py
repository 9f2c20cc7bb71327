"""Helpers of the losses: a random x_t for each example, and reductions over the elements of each example."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from ddpm_jax.diffusion.types import Process


def diffuse(key: Array, process: Process, x_0: Float[Array, "batch *shape"]) -> tuple[Array, Array, Array]:
    """(t, noise, x_t): for each example one t, uniform over 1..T, and the sample x_t of q(x_t | x_0) from `noise`."""
    key_t, key_noise = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, process.schedule.num_steps + 1)
    marginal = process.marginal(x_0, t)
    noise = marginal.noise(key_noise)
    return t, noise, marginal.push(noise)


def per_example(reduce: Callable, x: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """`reduce`, such as `jnp.mean`, over all axes but the first."""
    return reduce(x, axis=tuple(range(1, x.ndim)))
