"""Pictures contain the pixels they are made of, and files are read back as they were written."""

import numpy as np
import pytest
from PIL import Image

from ddpm_jax import figures
from ddpm_jax.figures import GAP, GAP_LEVEL, grid, picture, provenance_of, rate_distortion, save_npz, save_png, scatter

PROVENANCE = {"experiment": "digits.py", "knobs": {"width": 8}, "checkpoint": 12}


def some_images(num: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, height, width, channels), np.uint8)


@pytest.mark.parametrize("shape, factor", [((5, 8, 6, 1), 6), ((3, 50, 40, 3), 1), ((1, 47, 47, 1), 2)])
@pytest.mark.parametrize("columns", [None, 2])
def test_a_grid_contains_every_image_enlarged_by_a_whole_factor(shape, factor, columns):
    images = some_images(*shape)
    tiled = grid(images, columns)
    columns = columns or int(np.ceil(np.sqrt(len(images))))
    height, width = shape[1] * factor + GAP, shape[2] * factor + GAP
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        cell = tiled[row * height : (row + 1) * height, column * width : (column + 1) * width]
        assert (cell[:GAP] == GAP_LEVEL).all() and (cell[:, :GAP] == GAP_LEVEL).all()
        np.testing.assert_array_equal(cell[GAP::factor, GAP::factor], image)
        np.testing.assert_array_equal(cell[GAP + factor - 1 :: factor, GAP + factor - 1 :: factor], image)
    rest = tiled[-height - GAP :, (len(images) % columns or columns) * width :]
    assert (rest == GAP_LEVEL).all()


def test_sequences_are_rows_of_pixels_and_points_dots():
    bits = np.where(np.random.default_rng(0).random((6, 20)) < 0.5, 0, 255).astype(np.uint8)
    rows = picture(bits)[GAP:-GAP, GAP:-GAP, 0]
    np.testing.assert_array_equal(rows[::8, ::8], bits)
    points = np.array([[-1.0, 1.0], [0.5, -2.0]], np.float32)
    dark = np.argwhere(picture(points).sum(axis=-1) < 3 * 255)
    assert picture(points).shape == (480, 480, 3)
    for x, y in points:  # the square from -2.5 to 2.5, with y upwards
        pixel = (2.5 - y) / 5 * 480, (x + 2.5) / 5 * 480
        assert np.abs(dark - pixel).max(axis=1).min() <= 1
    assert not np.array_equal(scatter(points), scatter(points, arrows=np.ones((2, 2), np.float32)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_is_read_back_with_its_provenance(tmp_path, channels):
    [image] = some_images(1, 9, 7, channels)
    save_png(tmp_path / "a.png", image, PROVENANCE)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")).reshape(image.shape), image)
    assert provenance_of(tmp_path / "a.png") == provenance_of(tmp_path) == PROVENANCE
    save_png(tmp_path / "a.png", image)
    assert provenance_of(tmp_path / "a.png") is None


@pytest.mark.parametrize("labels", [None, np.arange(3, dtype=np.int32)])
def test_an_npz_is_read_back_with_its_provenance(tmp_path, labels):
    images, path = some_images(3, 4, 4, 3), tmp_path / "a.npz"
    save_npz(path, [images[:2], images[2:]], len(images), labels, PROVENANCE)
    stored = np.load(path)
    np.testing.assert_array_equal(stored["arr_0"], images)
    assert ("arr_1" in stored) == (labels is not None)
    assert provenance_of(path) == PROVENANCE


def test_files_of_other_origin_have_no_provenance(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(3))
    (tmp_path / "b.npz").write_bytes(b"cut")
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for name in ("a.npz", "b.npz", "c.png", "empty", "missing.png"):
        assert provenance_of(tmp_path / name) is None


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path, [image] = tmp_path / "a.png", some_images(1, 4, 4, 3)
    save_png(path, image, PROVENANCE)
    monkeypatch.setattr(Image.Image, "save", lambda self, part, *rest, **more: part.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_png(path, image, {})
    assert provenance_of(path) == PROVENANCE


def test_the_rate_distortion_curves_are_a_picture(tmp_path):
    rate, distortion = np.linspace(0, 3, 50), np.linspace(80, 1, 50)
    rate_distortion(rate, distortion, tmp_path / "one.png")
    rate_distortion(rate, distortion[::-1], tmp_path / "other.png")
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("one", "other"))
    assert one.shape == other.shape == (432, 1440) and not np.array_equal(one, other)
    assert figures.provenance_of(tmp_path / "one.png") is None
