"""A picture file as an array of the shape a run wants."""

import io

import numpy as np

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""What Pillow calls images with so many channels."""


def decode(packed: bytes, image_shape: tuple[int, int, int], fit: bool) -> np.ndarray:
    """uint8 [height, width, channels] of `image_shape`.

    With `fit` the largest centred part of the right proportions is resized (Lanczos); without, a picture of another
    size raises ValueError.
    """
    from PIL import Image, ImageOps

    height, width, channels = image_shape
    with Image.open(io.BytesIO(packed)) as picture:
        wanted = picture if picture.mode == MODES[channels] else picture.convert(MODES[channels])
        if fit and wanted.size != (width, height):
            wanted = ImageOps.fit(wanted, (width, height), Image.Resampling.LANCZOS)
        pixels = np.array(wanted)
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"has {pixels.shape[0]}x{pixels.shape[1]} pixels, not {height}x{width}")
    return pixels.reshape(image_shape)
