"""Decoding of an image file into a uint8 array of a given shape."""

import io
from typing import Any

import numpy as np

SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I")
"""Pillow's modes of grey images with 16 bits. Its conversion to 8 bits would clip all values above 255."""
MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image with this number of channels."""


def decode(encoded: bytes, image_shape: tuple[int, int, int], fit: bool) -> np.ndarray:
    """The image in the bytes of an image file: uint8 [height, width, channels] of `image_shape`.

    With `fit`, the image is rotated as its EXIF orientation demands, cropped in the centre to the proportions of
    `image_shape`, and resized (Lanczos). Without, its size must be that of `image_shape`.

    Raises ValueError for bytes that are not an image, an image too large to be decoded safely, or (without `fit`) one
    of another size. The message continues a sentence that begins with the name of the file.
    """
    from PIL import Image, ImageOps

    height, width, channels = image_shape
    with _opened(encoded) as image:
        if fit:
            ImageOps.exif_transpose(image, in_place=True)
        converted = _as_mode(image, MODES[channels])
        if fit and converted.size != (width, height):
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.LANCZOS)
        pixels = np.array(converted)
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"has {pixels.shape[0]}x{pixels.shape[1]} pixels, not {height}x{width}")
    return pixels.reshape(image_shape)


def _opened(encoded: bytes):
    """The image as a PIL.Image.Image, completely read. Raises ValueError with Pillow's reason if it cannot be read."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be read as an image: {error}") from None
    return image


def _as_mode(image: Any, mode: str):
    """The image converted to one of Pillow's modes; of 16 bits the upper 8 are kept."""
    if image.mode in SIXTEEN_BITS:
        from PIL import Image

        image = Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
