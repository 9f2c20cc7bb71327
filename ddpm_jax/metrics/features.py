"""Feature vectors of many images, a batch at a time."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

Extractor: TypeAlias = Callable[[UInt8[Array, "batch height width channels"]], Any]
"""``uint8 images [batch, height, width, channels] -> float32 [batch, dims]``, or a pytree of such arrays."""


def pixels(images: UInt8[Array, "batch height width channels"]) -> Float[Array, "batch dims"]:
    """The pixels themselves, on the scale 0..1: features without a network, for small images."""
    return images.reshape(len(images), -1).astype(jnp.float32) / 255


def extract(
    extractor: Extractor, images: Iterable[UInt8[np.ndarray, "_ height width channels"]], batch: int = 64
) -> Any:
    """The features of all images, as arrays of the host, in the order of the images.

    `images` are chunks of any length, for example ``[array]``, or the files of samples one after the other. The
    extractor is called with exactly `batch` images each time, so it compiles once; the last batch is filled up with
    copies, whose features are dropped. Raises ValueError if there are no images.
    """
    parts = [_of_batch(extractor, some, batch) for some in _batches(images, batch)]
    if not parts:
        raise ValueError("there are no images to compute features of")
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _batches(chunks: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """The same images in arrays of `batch`, the last one shorter."""
    rest = None
    for chunk in chunks:
        rest = chunk if rest is None else np.concatenate([rest, chunk])
        whole = len(rest) // batch * batch
        yield from (rest[first : first + batch] for first in range(0, whole, batch))
        rest = rest[whole:]
    if rest is not None and len(rest):
        yield rest


def _of_batch(extractor: Extractor, images: np.ndarray, batch: int) -> Any:
    rows = np.minimum(np.arange(batch), len(images) - 1)
    return jax.tree.map(lambda array: np.asarray(array)[: len(images)], extractor(jnp.asarray(images[rows])))
