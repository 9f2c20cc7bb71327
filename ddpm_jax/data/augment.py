"""Random changes of images that leave them images of the same kind, made on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped


def flip(
    key: Key[Array, ""], images: Shaped[Array, "batch height width channels"]
) -> Shaped[Array, "batch height width channels"]:
    """Each image mirrored left to right or not, by a coin of its own."""
    coins = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(coins, images[:, :, ::-1], images)
