"""The three resizings of published FIDs, as matrices: they give three different numbers."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

Resizing = Literal["tensorflow", "pytorch", "clean"]


def resize(
    images: Num[Array, "batch height width channels"], size: int, resizing: Resizing
) -> Float[Array, "batch {size} {size} channels"]:
    """The images at size x size, in float32 and on their own scale (0..255).

    - ``tensorflow``: bilinear without the half-pixel offset, as TensorFlow 1 (Heusel et al. 2017; Dhariwal & Nichol
      2021; torch-fidelity): pixel i is taken at ``i in / out``.
    - ``pytorch``: bilinear with it (pytorch-fid): at ``(i + 1/2) in / out - 1/2``.
    - ``clean``: bicubic with antialiasing, clipped to 0..255, as Pillow on floats (clean-fid; Parmar et al. 2022).
    """
    rows, columns = (matrix(count, size, resizing) for count in images.shape[1:3])
    x = jnp.einsum("oh,bhwc->bowc", rows, images.astype(jnp.float32), precision="highest")
    x = jnp.einsum("pw,bowc->bopc", columns, x, precision="highest")
    return jnp.clip(x, 0, 255) if resizing == "clean" else x


def matrix(count: int, size: int, resizing: str) -> Float[np.ndarray, "{size} {count}"]:
    """The weights of `count` pixels in each of `size` pixels. Raises ValueError for a resizing that is not one."""
    if resizing == "clean":
        return _bicubic(count, size).astype(np.float32)
    # in float32 as in the published programs: the rounding decides which two pixels are mixed
    scale, to = np.float32(count / size), np.arange(size, dtype=np.float32)
    if resizing == "pytorch":
        return _bilinear(np.maximum((to + np.float32(0.5)) * scale - np.float32(0.5), 0), count)
    if resizing == "tensorflow":
        return _bilinear(to * scale, count)
    raise ValueError(f"a resizing is tensorflow, pytorch or clean, got {resizing!r}")


def _bilinear(at: np.ndarray, count: int) -> np.ndarray:
    low = at.astype(int)
    share = (at - low)[:, None]
    pixels = np.arange(count)[None]
    high = np.minimum(low + 1, count - 1)
    weights = (1 - share) * (pixels == low[:, None]) + share * (pixels == high[:, None])
    return weights.astype(np.float32)


def _bicubic(count: int, size: int) -> np.ndarray:
    """Keys' kernel with a = -1/2, as wide as `count / size` pixels where the image shrinks."""
    stretch = max(count / size, 1)
    centre = (np.arange(size) + 0.5) * (count / size)
    x = np.abs(np.arange(count)[None] + 0.5 - centre[:, None]) / stretch
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)
