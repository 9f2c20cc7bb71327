"""Distances to the nearest of many examples, for samples that may repeat training data."""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def nearest(x: Float[Array, "num dims"], others: Iterable[Float[Array, "some dims"]]) -> Float[np.ndarray, " num"]:
    """The root mean squared difference between each x and the nearest of the others, which come in blocks.

    min_j sqrt(mean((x_i - y_j)^2)),    the mean over dims
    """
    lowest = jnp.full(len(x), jnp.inf)
    for block in others:
        lowest = jnp.minimum(lowest, _lowest(x, block))
    return np.sqrt(np.asarray(lowest) / x.shape[1])


@jax.jit
def _lowest(x: Float[Array, "num dims"], block: Float[Array, "some dims"]) -> Float[Array, " num"]:
    # about the mean of the block, since the difference of large squares would cancel; for float32, not for the result
    centre = block.mean(axis=0, keepdims=True)
    x, block = x - centre, block - centre
    dot = partial(jnp.matmul, precision="highest")  # by default accelerators round the factors
    squared = jnp.square(x).sum(1)[:, None] + jnp.square(block).sum(1)[None] - 2 * dot(x, block.T)
    # the product only finds the nearest: its rounding would give a copy a distance
    return jnp.square(x - block[squared.argmin(axis=1)]).sum(axis=1)
