"""Random augmentation of images, computed on the device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped


def flip(
    key: Key[Array, ""], images: Shaped[Array, "batch height width channels"]
) -> Shaped[Array, "batch height width channels"]:
    """Mirrors each image left to right with probability one half, independently of the others."""
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)
