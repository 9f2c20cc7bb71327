"""Random variables for networks, and a jitted application."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def variables_of(network, shape):
    """(variables, images, indices), none of the variables zero as layers that are initialized to zero are."""
    x, index = jax.random.normal(jax.random.key(1), shape), jnp.arange(shape[0])
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, index)
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(0, 0.3, leaf.shape), leaf.dtype), shapes), x, index


def apply(network, *args, **kwargs):
    return jax.jit(partial(network.apply, **kwargs))(*args)


def num_parameters(network, shape: tuple[int, ...]) -> int:
    tree = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32))
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
