"""Decoding of image files: orientation, bit depth, proportions, and files that cannot be decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data.decode import MODES, Cut, decode, endings


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def random_pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", MODES)
@pytest.mark.parametrize("fit", [False, True])
def test_an_image_of_the_right_size_is_returned_to_the_bit(channels, fit):
    pixels = random_pixels(5, 4, channels)
    image = Image.fromarray(pixels.squeeze(), MODES[channels])
    np.testing.assert_array_equal(decode(encoded(image), pixels.shape, fit), pixels)


def test_an_image_of_another_size_is_refused_unless_it_is_fitted():
    image = encoded(Image.fromarray(random_pixels(6, 4, 3)))
    with pytest.raises(ValueError, match="has 6x4 pixels, not 5x4"):
        decode(image, (5, 4, 3), fit=False)
    assert decode(image, (5, 4, 3), fit=True).shape == (5, 4, 3)


def test_an_image_is_rotated_as_its_exif_orientation_demands():
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :4] = 250
    rotated = Image.Exif()
    rotated[0x0112] = 6  # the camera was turned by 90 degrees: the left edge is the top
    pixels = decode(encoded(Image.fromarray(wide), exif=rotated), (8, 4, 1), fit=True)
    assert pixels[0].min() == 250 and pixels[-1].max() == 0


def test_of_16_bits_the_upper_8_are_kept():
    deep = Image.fromarray(np.array([[0x8000, 0x12FF, 0xFFFF]], np.uint16))
    np.testing.assert_array_equal(decode(encoded(deep), (1, 3, 1), fit=False)[0, :, 0], [0x80, 0x12, 0xFF])


def test_colours_of_a_palette_are_looked_up():
    pixels = np.zeros((5, 4, 3), np.uint8)
    pixels[:2] = (255, 0, 128)
    palette = Image.fromarray(pixels).quantize(4)
    np.testing.assert_array_equal(decode(encoded(palette), (5, 4, 3), fit=False), pixels)


def test_a_crop_is_centred():
    ramp = np.zeros((8, 12, 1), np.uint8) + np.arange(12, dtype=np.uint8)[None, :, None] * 20
    image = Image.fromarray(ramp.squeeze())
    np.testing.assert_array_equal(decode(encoded(image), (8, 8, 1), fit=True)[0, :, 0], np.arange(2, 10) * 20)


def test_a_box_is_cut_out_before_the_image_is_resized():
    pixels = random_pixels(12, 10, 3)
    found = decode(encoded(Image.fromarray(pixels)), (6, 4, 3), fit=True, box=(3, 5, 7, 11))
    np.testing.assert_array_equal(found, pixels[5:11, 3:7])


@pytest.mark.parametrize("box", [(3, 5, 11, 11), (3, 5, 7, 13), (-1, 5, 7, 11), (7, 5, 3, 11)])
def test_an_image_that_does_not_contain_the_box_is_refused(box):
    with pytest.raises(ValueError, match=r"has 12x10 pixels, and no part .*left, top, right, bottom"):
        decode(encoded(Image.fromarray(random_pixels(12, 10, 3))), (6, 4, 3), fit=True, box=box)


def test_an_image_of_another_size_has_another_part_in_the_box_and_is_refused():
    cut, pixels = Cut(box=(3, 5, 7, 11), of=(12, 10)), random_pixels(12, 10, 3)
    found = decode(encoded(Image.fromarray(pixels)), (6, 4, 3), fit=True, box=cut)
    np.testing.assert_array_equal(found, pixels[5:11, 3:7])
    message = r"has 24x20 pixels, and the part \(3, 5, 7, 11\) .* is that of pictures of 12x10"
    with pytest.raises(ValueError, match=message):
        decode(encoded(Image.fromarray(random_pixels(24, 20, 3))), (6, 4, 3), fit=True, box=cut)


@pytest.mark.parametrize("damage", [lambda image: b"not an image", lambda image: image[: len(image) // 2]])
def test_bytes_that_are_no_whole_image_are_refused(damage):
    with pytest.raises(ValueError, match="cannot be read as an image"):
        decode(damage(encoded(Image.fromarray(random_pixels(40, 40, 3)))), (40, 40, 3), fit=True)


def test_no_format_is_read_that_starts_another_program():
    """Pillow would hand PostScript to Ghostscript, whatever the ending of the file."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with Image.open(io.BytesIO(postscript)) as image:
        assert image.format == "EPS"
    with pytest.raises(ValueError, match=r"\Acannot be read as an image: its format is unknown\Z"):
        decode(postscript, (8, 8, 3), fit=True)
    assert not endings() & {".eps", ".ps", ".mpg", ".wmf", ".h5"}
    assert endings() >= {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
