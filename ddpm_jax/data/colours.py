"""Conversion of images in any of Pillow's modes to 8 bits per channel, and of transparent parts to a background.

| Pillow's mode | rule |
|---|---|
| L, RGB, and the alpha channel of LA, RGBA | unchanged |
| 1 | black 0, white 255 |
| P, PA | the colours of the palette |
| La, RGBa | divided by alpha: LA, RGBA |
| RGBX | the fourth channel is dropped |
| CMYK | R = (255 - C) (255 - K) / 255, likewise G and B; without a colour profile |
| YCbCr, HSV, LAB | to RGB by Pillow's formulas; LAB by littleCMS, to sRGB |
| I;16, and I of the formats PNG and PPM | the upper 8 of 16 bits; of 12 in TIFF files with 12 bits |
| F | round(255 v) for v from 0 (black) to 1 (white); any other value is refused |
| I of other formats, I;16 of formats that do not define its white, signed samples | refused |

Grey is made from RGB: L = 0.299 R + 0.587 G + 0.114 B, rounded. Colour profiles are not applied.
"""

from typing import Any

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
WHITE: Colour = (255, 255, 255)
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
FULL_RANGE = {"I": ("PNG", "PPM"), **dict.fromkeys(SIXTEEN_BITS, ("JPEG2000", "PNG", "PPM", "TIFF"))}
"""The formats in which white is 65535, for each of Pillow's modes of integers with more than 8 bits."""
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF: bits of each channel; 0 where zero is white; 2 for signed integers."""


class Unreadable(ValueError):
    """An image that cannot be decoded. The message continues a sentence that begins with the name of the file."""


def colour(text: str) -> Colour:
    """The colour with this name, such as "white", or hex code, such as "#ff8800". Raises ValueError for other text."""
    from PIL import ImageColor

    try:
        numbers = ImageColor.getrgb(text)
    except ValueError:
        numbers = ()
    if len(numbers) != 3:  # four for a colour with alpha
        raise ValueError(f"{text!r} is not a colour: give a name such as white, or a code such as #ff8800")
    return numbers


def as_mode(image: Any, mode: str, background: Colour = WHITE):
    """The loaded image in `mode`: L or RGB over the background, or LA or RGBA with its own alpha. See the rules above.

    Raises Unreadable for images to which no rule applies, and whatever Pillow raises.
    """
    image = _eight_bits(image)
    if image.has_transparency_data:
        image = _with_alpha(image)
        if mode in ("L", "RGB"):
            image = _over(image, background)
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")  # first, since Pillow converts some modes to RGB only
    return image if image.mode == mode else image.convert(mode)


def correct_transparency(image: Any) -> None:
    """Scales the transparent value of a PNG with 2 or 4 bits as Pillow scales its pixels. For images not yet loaded.

    Raises Unreadable for 16-bit colours with a transparent one: Pillow drops the bits in which it may differ.
    """
    if image.format != "PNG" or "transparency" not in image.info or not image.tile:
        return
    stored = image.tile[0][3]
    if stored in ("L;2", "L;4"):
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[stored]
    if stored == "RGB;16B":
        raise Unreadable("has 16 bits per channel and a transparent colour: save it with an alpha channel or 8 bits")


def _eight_bits(image: Any):
    """The image with 8 bits per channel; modes that have them already are unchanged."""
    tags = getattr(image, "tag_v2", {})
    if 2 in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)):
        raise Unreadable("has signed integers, whose black and white are not defined: save it with 8 or 16 bits")
    if image.mode != "F" and image.mode not in FULL_RANGE:
        return image
    grey = _from_floats(image) if image.mode == "F" else _from_integers(image, tags)
    return _grey_image(255 - grey if tags.get(PHOTOMETRIC) == 0 else grey, image)


def _from_floats(image: Any) -> np.ndarray:
    values = np.asarray(image)
    if not (values.min() >= 0 and values.max() <= 1):
        raise Unreadable(
            f"has floats from {values.min():g} to {values.max():g}, but only 0 (black) to 1 (white) are read: "
            "scale them, or save it with 8 or 16 bits"
        )
    return np.rint(values * 255).astype(np.uint8)


def _from_integers(image: Any, tags: Any) -> np.ndarray:
    if image.format not in FULL_RANGE[image.mode]:
        raise Unreadable(f"has integers whose white {image.format} does not define: save it with 8 or 16 bits")
    bits = int(np.atleast_1d(tags.get(BITS, 16))[0])
    return (np.asarray(image, np.uint32) >> (bits - 8)).astype(np.uint8)


def _grey_image(grey: np.ndarray, original: Any):
    """The grey values as an image, with alpha if one value of the original is transparent."""
    from PIL import Image

    made, transparent = Image.fromarray(grey), original.info.get("transparency")
    if transparent is not None:
        made.putalpha(Image.fromarray(np.where(np.asarray(original) == transparent, 0, 255).astype(np.uint8)))
    return made


def _with_alpha(image: Any):
    """The image as RGBA."""
    premultiplied = {"La": "LA", "RGBa": "RGBA"}
    image = image.convert(premultiplied[image.mode]) if image.mode in premultiplied else image
    return image.convert("RGBA")


def _over(image: Any, background: Colour):
    """The RGBA image over the background, as RGB."""
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")
