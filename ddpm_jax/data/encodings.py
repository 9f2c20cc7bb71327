"""Encodings: the maps from stored pixels to the x_0 of a process, and from x_0 back to pixels."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Shaped, UInt8


class Encoding(NamedTuple):
    """Two pure functions between stored data and x_0; the first may be random."""

    encode: Callable[[Array, Array], Array]
    """``encode(keys, stored)`` -> x_0, float32; `keys` is one key, or one per example."""
    decode: Callable[[Array], Array]
    """``decode(x_0)`` -> uint8 pixels, or floats for points."""
    unit: float | None = None
    """Levels of the 0-255 scale per unit of x_0; None where x_0 are not pixels."""


def to_float(images: UInt8[Array, "*shape"], levels: int, low: float = -1.0) -> Float[Array, "*shape"]:
    """Maps values 0 .. levels - 1 linearly to [low, 1]."""
    return images.astype(jnp.float32) * ((1 - low) / (levels - 1)) + low


def to_uint8(images: Float[Array, "*shape"], low: float = -1.0) -> UInt8[Array, "*shape"]:
    """Maps [low, 1] to bytes, rounded to the nearest; values outside the range are clipped."""
    return jnp.clip(jnp.round((images - low) * (255 / (1 - low))), 0, 255).astype(jnp.uint8)


def evenly(levels: int = 256, low: float = -1.0) -> Encoding:
    """The encoding whose levels are evenly spaced over [low, 1]."""
    unit = 127.5 if low == -1 else None
    return Encoding(lambda keys, stored: to_float(stored, levels, low), partial(to_uint8, low=low), unit)


def truncated() -> Encoding:
    """The encoding of bytes over [-1, 1] whose decoding truncates, so samples are half a level darker than rounded.

    As in the released code of Ho et al. 2020.
    """
    return evenly()._replace(decode=lambda x_0: jnp.clip((x_0 + 1) * 127.5, 0, 255).astype(jnp.uint8))


def points() -> Encoding:
    """The encoding of data that are stored as floats: x_0 is the stored value."""
    return Encoding(lambda keys, stored: stored.astype(jnp.float32), lambda x_0: x_0)


def standardized(mean: float, deviation: float) -> Encoding:
    """The encoding of bytes that adds uniform noise one level wide, and scales to mean 0 and variance 1.

    Sohl-Dickstein et al. 2015, Section 3.2. `mean` and `deviation` are those of (byte + noise) / 256. The noise is
    added before scaling, so it is ``1 / (256 deviation)`` wide in x_0; the released code adds it after scaling.
    """

    def encode(keys: Key[Array, "*batch"], stored: UInt8[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
        shape = stored.shape[keys.ndim :]
        draw = partial(jax.random.uniform, shape=shape)
        noise = jax.vmap(draw)(keys) if keys.ndim else draw(keys)
        return ((stored.astype(jnp.float32) + noise) / 256 - mean) / deviation

    def decode(x_0: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
        return jnp.clip(jnp.floor((x_0 * deviation + mean) * 256), 0, 255).astype(jnp.uint8)

    return Encoding(encode, decode, 256 * deviation)


def as_picture(stored: Shaped[Array, "*shape"], levels: int | None) -> Array:
    """Stored data for display: bytes over all 256 levels; floats unchanged."""
    return stored if levels is None else to_uint8(to_float(stored, levels))
