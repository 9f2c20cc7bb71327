"""Sets of images: the same from an .npz, a folder and a zip, and one line for what is none."""

import hashlib
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import load
from ddpm_jax.data.image_set import image_set

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{number:03d}.png")
    return tmp_path / "pictures"


def content(path, channels=3):
    return load(image_set(path, channels).open("test"))["image"]


def test_a_folder_a_zip_and_both_kinds_of_npz_have_the_same_images(folder, tmp_path):
    np.savez(tmp_path / "x.npz", labels=np.arange(5), arr_0=IMAGES)
    np.savez_compressed(tmp_path / "y.npz", IMAGES)
    np.savez(tmp_path / "z.npz", np.asfortranarray(IMAGES))
    shutil.make_archive(str(tmp_path / "pictures"), "zip", folder)
    for name in ("pictures", "pictures.zip", "x.npz", "y.npz", "z.npz"):
        np.testing.assert_array_equal(content(tmp_path / name), IMAGES)


def test_grey_pictures_are_the_same_in_three_channels(tmp_path):
    Image.fromarray(IMAGES[0, :, :, 0]).save(tmp_path / "x.png")
    (grey,), (coloured,) = content(tmp_path, 1), content(tmp_path)
    np.testing.assert_array_equal(grey[..., 0], IMAGES[0, :, :, 0])
    np.testing.assert_array_equal(coloured, np.repeat(grey, 3, axis=-1))


def test_the_digest_of_an_npz_is_that_of_the_file(tmp_path):
    np.savez(tmp_path / "x.npz", IMAGES)
    listing = image_set(tmp_path / "x.npz").listing()
    assert listing.digest == hashlib.sha256((tmp_path / "x.npz").read_bytes()).hexdigest()
    assert listing.report.startswith("5 images")


def test_the_digest_of_a_folder_changes_with_a_picture_and_not_with_its_place(folder, tmp_path):
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    digest = image_set(folder).listing().digest
    assert image_set(elsewhere).listing().digest == digest
    Image.fromarray(255 - IMAGES[2]).save(elsewhere / "002.png")
    changed = image_set(elsewhere).listing().digest
    Image.fromarray(IMAGES[2]).save(elsewhere / "002.png")
    (elsewhere / "002.png").rename(elsewhere / "009.png")
    assert len({digest, changed, image_set(elsewhere).listing().digest}) == 3


def test_pictures_of_several_sizes_are_refused(folder):
    Image.fromarray(IMAGES[0, :3]).save(folder / "003.png")
    with pytest.raises(ValueError, match=r"003\.png has 3x6 pixels, 000\.png 4x6"):
        content(folder)


def test_what_has_no_images_is_named(tmp_path):
    (tmp_path / "text.npz").write_text("no zip")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    np.savez(tmp_path / "floats.npz", IMAGES / 255)
    np.savez(tmp_path / "one.npz", IMAGES[0])
    np.savez(tmp_path / "other.npz", mu=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, message in {
        "text.npz": "is no npz file",
        "floats.npz": "expected arr_0, uint8",
        "one.npz": "expected arr_0, uint8",
        "other.npz": "expected arr_0, uint8",
        "empty.zip": "has no pictures",
        "": "broken.png cannot be read as an image",
    }.items():
        with pytest.raises(ValueError, match=message):
            image_set(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.npz"):
        image_set(tmp_path / "none.npz")
