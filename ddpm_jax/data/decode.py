"""Decoding of an image file into a uint8 array of a given shape."""

import io
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.data.colours import WHITE, Colour, Unreadable, as_mode, correct_transparency

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of an image with this number of channels."""
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows but cannot decode by itself. For EPS it would start another program."""
ORIENTATION = 0x0112
"""The EXIF tag that states how the camera was held, 1 to 8."""
Box = tuple[int, int, int, int]
"""A part of a picture: (left, top, right, bottom) in pixels, the last two exclusive."""


class Cut(NamedTuple):
    """A part of pictures that all have one size, such as the face in aligned portraits."""

    box: Box
    of: tuple[int, int]
    """(height, width) of the whole picture, upright. One of another size is refused: its box would be another part."""


@lru_cache(1)
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, the most frequent first."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in NOT_READ)


@lru_cache(1)
def endings() -> frozenset[str]:
    """The endings of files in these formats, in lower case, such as ".png"."""
    from PIL import Image

    known = {*formats(), "MPO"}  # Pillow opens MPO, several pictures in one file, as JPEG
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def decode(
    encoded: bytes,
    image_shape: tuple[int, int, int],
    fit: bool,
    centring: tuple[float, float] = (0.5, 0.5),
    background: Colour = WHITE,
    box: Box | Cut | None = None,
) -> np.ndarray:
    """The image in the bytes of an image file: uint8 [height, width, channels] of `image_shape`.

    The colours follow the rules of `data.colours`: transparent parts show the background, unless `image_shape` has an
    alpha channel (2 or 4 channels). Of several frames or pages the first is decoded. With `fit`, the image is rotated
    as its EXIF orientation demands, cropped to the proportions of `image_shape`, and resized (Lanczos). `centring` is
    the position of the crop, from (0, 0), left and top, to (1, 1). `box` is a part of the rotated image which is cut
    out first; a `Cut` also states the size of the image. Without `fit`, its size must be that of `image_shape`.

    Raises ValueError for bytes that are not an image, an image too large to be decoded safely, one that does not
    contain the box, or (without `fit`, or for a `Cut`) one of another size. The message continues a sentence that
    begins with the name of the file.
    """
    height, width, channels = image_shape
    fitted = partial(_fitted, size=(width, height), centring=centring, box=box) if fit else None
    pixels = np.array(_image(encoded, MODES[channels], background, fitted))
    if pixels.shape[:2] != (height, width):
        raise Unreadable(f"has {pixels.shape[0]}x{pixels.shape[1]} pixels, not {height}x{width}")
    return pixels.reshape(image_shape)


def decode_as_it_is(encoded: bytes, channels: int) -> np.ndarray:
    """The image in the bytes of an image file, neither cropped nor resized: uint8 [height, width, channels].

    Transparent parts are white unless there are 2 or 4 channels. Raises ValueError as `decode` does.
    """
    pixels = np.array(_image(encoded, MODES[channels], WHITE, None))
    return pixels.reshape(*pixels.shape[:2], channels)


def _image(encoded: bytes, mode: str, background: Colour, change: Callable[[Any], Any] | None) -> Any:
    """The image in this mode, upright and changed if `change` is given. Raises Unreadable, whatever is wrong."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded), formats=formats()) as opened:
            correct_transparency(opened)
            opened.load()
            image = as_mode(opened, mode, background)
            return image if change is None else change(_upright(image, _orientation(opened)))
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("cannot be read as an image: its format is unknown") from None
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise Unreadable(f"cannot be read as an image: {error or type(error).__name__}") from None


def _fitted(image: Any, size: tuple[int, int], centring: tuple[float, float], box: Box | Cut | None) -> Any:
    """The image, or the part of it in the box, cropped and resized to this (width, height)."""
    from PIL import Image, ImageOps

    if isinstance(box, Cut):
        _check_whole(image, box)
        box = box.box
    if box is not None:
        if not (0 <= box[0] < box[2] <= image.width and 0 <= box[1] < box[3] <= image.height):
            raise Unreadable(f"has {image.height}x{image.width} pixels, and no part {box} (left, top, right, bottom)")
        image = image.crop(box)
    return image if image.size == size else ImageOps.fit(image, size, Image.Resampling.LANCZOS, centering=centring)


def _check_whole(image: Any, cut: Cut) -> None:
    """Raises Unreadable unless the image has the size of the pictures that this part is cut out of."""
    (height, width), kept = cut.of, f"the part {cut.box} (left, top, right, bottom)"
    if (image.height, image.width) != (height, width):
        raise Unreadable(f"has {image.height}x{image.width} pixels, and {kept} is that of pictures of {height}x{width}")


def _orientation(image: Any) -> int:
    """The EXIF orientation of a loaded image; 1, upright, if there is none or it cannot be read."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # malformed EXIF data, of which nothing else is needed
        return 1


def _upright(image: Any, orientation: int):
    """The image, rotated or mirrored as the EXIF orientation demands."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(methods[orientation]) if orientation in methods else image
