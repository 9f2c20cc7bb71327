"""Folders and zips of pictures; flips."""

import pickle
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import flip, folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty of 8x12 with red from left to right, in two subfolders, and things that are no pictures."""
    root = tmp_path / "pictures"
    red = np.zeros((8, 12, 3), np.uint8)
    red[..., 0] = np.arange(12) * 20
    for number in range(30):
        place = root / f"part_{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        red[..., 2] = number
        Image.fromarray(red).save(place / f"{number:02d}.png")
    (root / "notes.txt").write_text("mine")
    (root / ".thumbnails").mkdir()
    Image.fromarray(red).save(root / ".thumbnails" / "00.png")
    return root


def test_pictures_come_cropped_in_the_middle_and_in_order(pictures):
    source = folder(str(pictures), (8, 8, 3)).open("train")
    assert len(source) == 30
    image = source[0]["image"]
    assert image.dtype == np.uint8 and image.shape == (8, 8, 3)
    np.testing.assert_array_equal(image[0, :, 0], np.arange(2, 10) * 20)
    assert [int(source[i]["image"][0, 0, 2]) for i in (0, 1, 15)] == [0, 2, 1]


def test_other_sizes_and_channels_are_made_to_fit(pictures):
    image = folder(str(pictures), (4, 6, 1)).open("train")[0]["image"]
    assert image.shape == (4, 6, 1)
    assert (np.diff(image[0, :, 0].astype(int)) > 0).all()  # still darker on the left


def test_a_zip_is_a_folder(pictures, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", pictures)
    ours, theirs = (folder(str(path), (8, 8, 3), test_percent=20) for path in (packed, pictures))
    for split in ("train", "test"):
        one, other = ours.open(split), pickle.loads(pickle.dumps(theirs.open(split)))
        assert len(one) == len(other) > 0
        assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(one, other, strict=True))


def test_the_splits_part_the_pictures_and_stay_when_others_come(pictures):
    data = folder(str(pictures), (8, 8, 3), test_percent=20)
    train, test = (set(data.open(split).names) for split in ("train", "test"))
    assert not train & test and len(train | test) == 30 and test
    Image.new("RGB", (9, 9)).save(pictures / "new.png")
    assert test <= set(data.open("test").names) and train <= set(data.open("train").names)


def test_mistakes_are_told(pictures, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder and no zip"):
        folder(str(tmp_path / "nowhere"), (8, 8, 3)).open("train")
    with pytest.raises(ValueError, match=r"no picture for test \(0 % are for test\)"):
        folder(str(pictures), (8, 8, 3)).open("test")
    (pictures / "part_0" / "00.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"00\.png cannot be read as a picture"):
        folder(str(pictures), (8, 8, 3)).open("train")[0]


def test_a_picture_is_turned_upright_and_keeps_its_high_bits(tmp_path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, :4] = 250
    sideways = Image.Exif()
    sideways[0x0112] = 6  # the camera was turned a quarter: the left edge is the top
    Image.fromarray(wide).save(tmp_path / "a.png", exif=sideways)
    Image.fromarray(np.full((8, 4), 0x8000, np.uint16)).save(tmp_path / "b.png")
    source = folder(str(tmp_path), (8, 4, 1)).open("train")
    assert source[0]["image"][0].min() == 250 and source[0]["image"][-1].max() == 0
    assert (source[1]["image"] == 0x80).all()


def test_a_damaged_zip_is_told(pictures, tmp_path):
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", pictures))
    content = bytearray(packed.read_bytes())
    start = content.index(b".png") + 4
    content[start : start + 40] = bytes(40)
    packed.write_bytes(content)
    source = folder(str(packed), (8, 8, 3)).open("train")
    with pytest.raises(ValueError, match=r"packed\.zip/part_1/15\.png"):
        for index in range(len(source)):
            source[index]


def test_half_of_the_images_are_mirrored_and_none_is_changed_otherwise():
    images = jnp.arange(400 * 2 * 3, dtype=jnp.int32).reshape(400, 2, 3, 1)
    flipped = np.asarray(flip(jax.random.key(0), images))
    as_it_was = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (as_it_was ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
