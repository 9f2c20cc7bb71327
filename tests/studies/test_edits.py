"""`ddpm-jax edit`: what it writes, what it never replaces, and its mistakes in one line."""

import re

import numpy as np
import pytest
from mistakes import fails
from PIL import Image

from ddpm_jax.commands import main
from ddpm_jax.data import digits

FEW = ("--num", "2", "--steps", "4")


@pytest.fixture
def picture(tmp_path):
    """A test digit as a picture, and its file."""
    image = np.rint(digits().open("test")[3]["image"] * (255 / 16)).astype(np.uint8)
    Image.fromarray(image[..., 0]).save(tmp_path / "digit.png")
    return image, str(tmp_path / "digit.png")


def test_a_file_and_a_test_image_of_the_run_are_the_same(finished, tmp_path, picture):
    _, file = picture
    for name, source in (("a", ("--image", file)), ("b", ("--from-test", "3"))):
        out = str(tmp_path / f"{name}.npz")
        assert main(["edit", "sdedit", str(finished), *source, *FEW, "--strength", "0.5", "--out", out]) == 0
    one, two = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in "ab")
    np.testing.assert_array_equal(one, two)
    assert one.shape == (2, 8, 8, 1) and not np.array_equal(one[0], one[1])


def test_sdedit_of_strength_0_is_the_image(finished, tmp_path, picture):
    image, file = picture
    out = str(tmp_path / "same.npz")
    assert main(["edit", "sdedit", str(finished), "--image", file, *FEW, "--strength", "0", "--out", out]) == 0
    np.testing.assert_array_equal(np.load(out)["arr_0"], np.stack([image, image]))


def test_what_is_known_stays_and_a_picture_is_never_replaced(finished, tmp_path, picture, capsys):
    image, file = picture
    known = ("--image", file, "--method", "replacement", "--noise", "1e-6", "--box", "0", "0", "4", "8")
    out = str(tmp_path / "filled.npz")
    assert main(["edit", "inpaint", str(finished), *known, *FEW, "--out", out]) == 0
    for result in np.load(out)["arr_0"]:
        np.testing.assert_allclose(result[4:].astype(int), image[4:].astype(int), atol=1)  # 127.5 is rounded
    assert "choose another name with --out" in fails(capsys, "edit", "inpaint", str(finished), *known, "--out", out)


def test_a_row_has_the_measurement_the_results_and_the_original(finished, tmp_path, picture):
    _, file = picture
    out = tmp_path / "row.png"
    small = ("--image", file, "--method", "pigdm", "--factor", "2")
    assert main(["edit", "super-resolve", str(finished), *small, *FEW, "--out", str(out)]) == 0
    assert Image.open(out).size == (4 * 50 + 2, 50 + 2)


@pytest.mark.slow
def test_twisted_reports_an_effective_sample_size_that_can_be(finished, tmp_path, capsys):
    given = ("--from-test", "3", "--method", "twisted", "--particles", "4", "--num", "2", "--steps", "10")
    assert main(["edit", "inpaint", str(finished), *given, "--out", str(tmp_path / "twisted.npz")]) == 0
    found = re.search(r"effective sample size ([\d.]+) of 4", capsys.readouterr().out)
    assert found and 1 <= float(found[1]) <= 4


@pytest.mark.parametrize(
    "options, message",
    [
        (["sdedit"], "sdedit needs one image: --image FILE or --from-test N"),
        (["interpolate", "--from-test", "1"], "interpolate needs two images"),
        (["sdedit", "--from-test", "360"], "--from-test must be between 0 and 359, got 360"),
        (["sdedit", "--image", "nowhere.png"], "nowhere.png"),
        (["sdedit", "--image", "LARGE"], "has 9x9 pixels, not 8x8"),
        (["sdedit", "--image", "ARRAY"], "not one image, uint8 (8, 8, 1)"),
        (["sdedit", "--from-test", "1", "--strength", "2"], "--strength must lie in [0, 1], got 2"),
        (["sdedit", "--from-test", "1", "--blur", "2"], "--blur applies to deblur, not to sdedit"),
        (["sdedit", "--from-test", "1", "--num", "0"], "--num must be at least 1, got 0"),
        (["sdedit", "--from-test", "1", "--label", "1"], "not class-conditional"),
        (["sdedit", "--from-test", "1", "--out", "x.gif"], "end it in .png"),
        (["inpaint", "--from-test", "1", "--box", "0", "0", "9", "2"], "--box 0 0 9 2 is not within the 8x8 pixels"),
        (["inpaint", "--from-test", "1", "--box", "0", "0", "8", "8"], "white pixels, which are filled in"),
        (["inpaint", "--from-test", "1", "--noise", "0"], "--noise must be above 0, got 0.0"),
        (["deblur", "--from-test", "1", "--method", "repaint"], "--method repaint applies to inpaint, not to deblur"),
        (["super-resolve", "--from-test", "1", "--factor", "3"], "--factor 3 does not divide the 8x8 pixels"),
        (["colorize", "--from-test", "1"], "colorize needs images with 3 channels"),
        (["sharpen", "--from-test", "1"], "sharpen"),
    ],
)
def test_mistakes_are_one_line_with_the_way_out(finished, tmp_path, capsys, options, message):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "large.png")
    np.save(tmp_path / "array.npy", np.zeros((8, 8, 3), np.uint8))
    files = {"LARGE": str(tmp_path / "large.png"), "ARRAY": str(tmp_path / "array.npy")}
    kind, *others = (files.get(option, option) for option in options)
    assert message in fails(capsys, "edit", kind, str(finished), *others)
