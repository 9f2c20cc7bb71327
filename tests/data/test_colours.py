"""Conversion to 8 bits: each of Pillow's modes has a rule, or is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data.colours import Unreadable, as_mode, colour

ORANGE = (255, 136, 0)


def grey(image: Image.Image) -> int:
    """The value of a uniform image, as grey."""
    return int(np.unique(np.asarray(as_mode(image, "L"))).item())


def stored(image: Image.Image, form: str, **options) -> Image.Image:
    """The image as it is read back from a file of this format."""
    file = io.BytesIO()
    image.save(file, form, **options)
    read = Image.open(file)
    read.load()
    return read


@pytest.mark.parametrize("mode", sorted(set(Image.MODES) - {"LAB"}))
def test_white_is_white_and_black_is_black_in_each_mode_or_the_mode_is_refused(mode):
    """As Pillow makes them from grey. Images of these modes that come from no file have no known range."""
    white, black = (Image.new("L", (2, 2), value) for value in (255, 0))
    if mode in ("I", "F") or mode.startswith("I;16"):
        with pytest.raises(Unreadable):
            grey(white.convert("I").convert(mode))
        return
    through = {"La": "LA", "RGBa": "RGBA", "PA": "LA"}.get(mode, "RGB")
    assert (grey(white.convert(through).convert(mode)), grey(black.convert(through).convert(mode))) == (255, 0)


def test_lab_is_converted_to_srgb():
    """CIELAB of white, of middle grey and of the red of sRGB, (54.29, 80.81, 69.89), for the white point D50."""
    for lab, expected in [((255, 128, 128), (255,) * 3), ((136, 128, 128), (127,) * 3), ((138, 209, 198), (255, 0, 0))]:
        shown = np.asarray(as_mode(Image.new("LAB", (1, 1), lab), "RGB"), int)[0, 0]
        assert np.abs(shown - expected).max() <= 5
    assert grey(Image.new("LAB", (1, 1), (255, 128, 128))) == 255


@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("background", [(255, 255, 255), ORANGE])
def test_transparent_parts_show_the_background_in_proportion(alpha, background):
    image = Image.new("RGBA", (1, 1), (10, 200, 30, alpha))
    shown = np.asarray(as_mode(image, "RGB", background), float)[0, 0]
    share = (np.array(background) - shown) @ (np.array(background) - (10, 200, 30))
    whole = np.square(np.array(background) - (10, 200, 30)).sum()
    assert share / whole == pytest.approx(alpha / 255, abs=0.005)


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_over_white_is_grey_and_its_own_alpha_stays_where_it_is_asked_for(mode):
    image = Image.merge("LA", [Image.new("L", (1, 1), 40), Image.new("L", (1, 1), 0)])
    assert np.asarray(as_mode(image, mode)).ravel().tolist() == {"L": [255], "LA": [40, 0]}[mode]


@pytest.mark.parametrize("bits, value", [(16, 0x12FF), (12, 0x12F)])
def test_the_upper_eight_bits_are_kept_of_as_many_as_the_file_states(bits, value):
    image = stored(Image.fromarray(np.full((2, 2), value, np.uint16)), "TIFF")
    image.tag_v2[258] = (bits,)
    assert grey(image) == 0x12


@pytest.mark.parametrize("values", [(0.0, 1.5), (-0.1, 1.0), (0.0, float("nan")), (0.0, 255.0)])
def test_floats_outside_of_0_to_1_are_refused(values):
    image = stored(Image.fromarray(np.array([values], np.float32)), "TIFF")
    with pytest.raises(Unreadable, match=r"\Ahas floats from .*, but only 0 \(black\) to 1 \(white\) are read: .*\Z"):
        as_mode(image, "RGB")


def test_integers_of_unknown_range_are_refused():
    with pytest.raises(Unreadable, match="has signed integers"):
        as_mode(stored(Image.fromarray(np.ones((2, 2), np.int32)), "TIFF"), "L")
    with pytest.raises(Unreadable, match="has integers whose white None does not define"):
        as_mode(Image.fromarray(np.ones((2, 2), np.int32)), "L")


def test_a_colour_is_a_name_or_a_code():
    assert colour("white") == (255, 255, 255) and colour("#ff8800") == ORANGE
    for text in ("nocolour", "#ff", "#ff880080", ""):
        with pytest.raises(ValueError, match=rf"\A'{text}' is not a colour: give a name such as white, or a code"):
            colour(text)
