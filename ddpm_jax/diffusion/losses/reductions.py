"""Helpers of the losses: a random x_t for each example, and reductions over the elements of each example."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, Int

from ddpm_jax.diffusion.types import Process

Draw = Callable[[Array, int, int], Array]
"""``draw(key, batch, T)`` -> one t in 1..T for each example, each of them uniform unless stated otherwise."""


def uniform(key: Array, batch: int, num_steps: int) -> Int[Array, " batch"]:
    """For each example one t, independent and uniform over 1..T."""
    return jax.random.randint(key, (batch,), 1, num_steps + 1)


def diffuse(
    key: Array, process: Process, x_0: Float[Array, "batch *shape"], draw: Draw = uniform
) -> tuple[Array, Array, Array]:
    """(t, noise, x_t): for each example one t from ``draw(key, batch, T)``, and x_t ~ q(x_t | x_0) from `noise`."""
    key_t, key_noise = jax.random.split(key)
    t = draw(key_t, len(x_0), process.schedule.num_steps)
    marginal = process.marginal(x_0, t)
    noise = marginal.noise(key_noise)
    return t, noise, marginal.push(noise)


def per_example(reduce: Callable, x: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    """`reduce`, such as `jnp.mean`, over all axes but the first."""
    return reduce(x, axis=tuple(range(1, x.ndim)))
