"""How what a data set stores becomes the x_0 of a process, and how an x_0 is shown."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped, UInt8


class Encoding(NamedTuple):
    """Two pure functions; the first may be random."""

    encode: Callable[[Array, Array], Array]
    """``(keys, stored)`` -> x_0, float32; a key, or one for each example."""
    decode: Callable[[Array], Array]
    """x_0 -> bytes, or what else a sample is shown as."""


def to_float(images: UInt8[Array, "*shape"], levels: int, low: float = -1.0) -> Float[Array, "*shape"]:
    """Values 0 .. levels - 1 to [low, 1]."""
    return images.astype(jnp.float32) * ((1 - low) / (levels - 1)) + low


def to_uint8(images: Float[Array, "*shape"], low: float = -1.0) -> UInt8[Array, "*shape"]:
    """[low, 1] to bytes, rounded to the nearest; what lies outside is clipped."""
    return jnp.clip(jnp.round((images - low) * (255 / (1 - low))), 0, 255).astype(jnp.uint8)


def evenly(levels: int = 256, low: float = -1.0) -> Encoding:
    """The levels spread over [low, 1]."""
    return Encoding(lambda keys, stored: to_float(stored, levels, low), partial(to_uint8, low=low))


def truncated() -> Encoding:
    """Bytes over [-1, 1]; samples lose their fraction, and half a level, as in the released code of Ho et al. 2020."""
    return evenly()._replace(decode=lambda x_0: jnp.clip((x_0 + 1) * 127.5, 0, 255).astype(jnp.uint8))


def points() -> Encoding:
    """Stored floats as they are."""
    return Encoding(lambda keys, stored: stored.astype(jnp.float32), lambda x_0: x_0)


def standardised(mean: float, deviation: float) -> Encoding:
    """Bytes, made continuous by uniform noise one level wide and divided by 256, less `mean` and over `deviation`.

    Sohl-Dickstein et al. 2015, Section 3.2: data of unit variance. The noise is added before scaling: one level is
    ``1 / (256 deviation)`` wide then (the released code scales it the other way).
    """

    def encode(keys: Key[Array, "*batch"], stored: UInt8[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
        shape = stored.shape[keys.ndim :]
        draw = partial(jax.random.uniform, shape=shape)
        noise = jax.vmap(draw)(keys) if keys.ndim else draw(keys)
        return ((stored.astype(jnp.float32) + noise) / 256 - mean) / deviation

    def decode(x_0: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
        return jnp.clip(jnp.floor((x_0 * deviation + mean) * 256), 0, 255).astype(jnp.uint8)

    return Encoding(encode, decode)


def shown(stored: Shaped[Array, "*shape"], levels: int | None) -> Array:
    """What a data set stores as it is shown: bytes, whatever its levels; floats stay."""
    return stored if levels is None else to_uint8(to_float(stored, levels))
