"""Folders and zips of image files."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """30 images of 8x12 whose red rises from left to right, in two subfolders; and files that are not images."""
    root = tmp_path / "pictures"
    red = np.zeros((8, 12, 3), np.uint8)
    red[..., 0] = np.arange(12) * 20
    for number in range(30):
        subfolder = root / f"part_{number % 2}"
        subfolder.mkdir(parents=True, exist_ok=True)
        red[..., 2] = number
        Image.fromarray(red).save(subfolder / f"{number:02d}.png")
    (root / "notes.txt").write_text("mine")
    (root / ".thumbnails").mkdir()
    Image.fromarray(red).save(root / ".thumbnails" / "00.png")
    return root


def test_images_are_cropped_in_the_centre_and_in_the_order_of_their_names(pictures):
    source = folder(str(pictures), (8, 8, 3)).open("train")
    assert len(source) == 30
    image = source[0]["image"]
    assert image.dtype == np.uint8 and image.shape == (8, 8, 3)
    np.testing.assert_array_equal(image[0, :, 0], np.arange(2, 10) * 20)
    assert [int(source[i]["image"][0, 0, 2]) for i in (0, 1, 15)] == [0, 2, 1]


def test_other_sizes_and_channels_are_converted(pictures):
    image = folder(str(pictures), (4, 6, 1)).open("train")[0]["image"]
    assert image.shape == (4, 6, 1)
    assert (np.diff(image[0, :, 0].astype(int)) > 0).all()  # still darker on the left


def test_a_zip_has_the_images_of_the_folder(pictures, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "archive"), "zip", pictures)
    zipped, plain = (folder(str(path), (8, 8, 3), test_percent=20) for path in (archive, pictures))
    for split in ("train", "test"):
        one, other = zipped.open(split), pickle.loads(pickle.dumps(plain.open(split)))
        assert len(one) == len(other) > 0
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))


def test_the_splits_are_disjoint_and_stay_when_files_are_added(pictures):
    data = folder(str(pictures), (8, 8, 3), test_percent=20)
    train, test = (set(data.open(split).names) for split in ("train", "test"))
    assert not train & test and len(train | test) == 30 and test
    Image.new("RGB", (9, 9)).save(pictures / "new.png")
    assert test <= set(data.open("test").names) and train <= set(data.open("train").names)


def test_mistakes_have_messages_of_one_line(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\A.*nowhere is neither a folder nor a zip.*\Z"):
        folder(str(tmp_path / "nowhere"), (8, 8, 3)).open("train")
    with pytest.raises(ValueError, match=r"\A.* has no image for the test split \(0 % are for test.*\Z"):
        folder(str(pictures), (8, 8, 3)).open("test")
    (pictures / "part_0" / "00.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"\A.*00\.png cannot be read as an image.*\Z"):
        folder(str(pictures), (8, 8, 3)).open("train")[0]


def test_a_damaged_zip_entry_is_named(pictures, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", pictures))
    content = bytearray(archive.read_bytes())
    start = content.index(b".png") + 4
    content[start : start + 40] = bytes(40)
    archive.write_bytes(content)
    source = folder(str(archive), (8, 8, 3)).open("train")
    with pytest.raises(ValueError, match=r"archive\.zip/part_1/15\.png"):
        for index in range(len(source)):
            source[index]
