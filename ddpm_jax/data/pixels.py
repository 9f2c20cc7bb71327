"""A picture file as an array of the shape a run wants."""

import io
from typing import Any

import numpy as np

SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I")
"""What Pillow calls grey of more than a byte; converting it, it would cut all above 255."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What Pillow calls images with so many channels."""


def decode(packed: bytes, image_shape: tuple[int, int, int], fit: bool) -> np.ndarray:
    """uint8 [height, width, channels] of `image_shape`.

    With `fit` the largest centred part of the right proportions is resized (Lanczos), the way up that a camera noted;
    without, a picture of another size raises ValueError. So does what is no picture, or one of unreasonable size.
    """
    from PIL import Image, ImageOps

    height, width, channels = image_shape
    with _opened(packed) as picture:
        if fit:
            ImageOps.exif_transpose(picture, in_place=True)
        wanted = _as_mode(picture, MODES[channels])
        if fit and wanted.size != (width, height):
            wanted = ImageOps.fit(wanted, (width, height), Image.Resampling.LANCZOS)
        pixels = np.array(wanted)
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"has {pixels.shape[0]}x{pixels.shape[1]} pixels, not {height}x{width}")
    return pixels.reshape(image_shape)


def _opened(packed: bytes):
    """Pillow's image, read to its end. Raises ValueError saying what is wrong with it."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(packed))
        picture.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be read as a picture: {error}") from None
    return picture


def _as_mode(picture: Any, mode: str):
    if picture.mode in SIXTEEN_BITS:
        from PIL import Image

        picture = Image.fromarray((np.asarray(picture, np.uint32) >> 8).astype(np.uint8))
    return picture if picture.mode == mode else picture.convert(mode)
