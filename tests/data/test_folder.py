"""Folders and zips of image files."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from data import odd_pictures
from PIL import Image

from ddpm_jax.data import Cut, folder


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


def test_a_box_is_cut_out_of_each_picture(pictures):
    """The pictures are ramps from left to right in steps of 20."""
    image = folder(str(pictures), (4, 4, 3), crop=(5, 2, 9, 6)).open("train")[0]["image"]
    np.testing.assert_array_equal(image[0, :, 0], np.arange(5, 9) * 20)
    source = folder(str(pictures), (4, 4, 3), crop=Cut((5, 2, 9, 6), of=(8, 12))).open("train")
    np.testing.assert_array_equal(source[0]["image"], image)
    with pytest.raises(ValueError, match=r"\.png has 8x12 pixels, and the part .* of pictures of 9x12"):
        folder(str(pictures), (4, 4, 3), crop=Cut((5, 2, 9, 6), of=(9, 12))).open("train")[0]


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
    message = r"\A.* has no image for the test split \(0 % are for test\): 30 pictures, 2 files left out \(.*\)\Z"
    with pytest.raises(ValueError, match=message):
        folder(str(pictures), (8, 8, 3)).open("test")
    with pytest.raises(ValueError, match=r"\A'no colour' is not a colour.*\Z"):
        folder(str(pictures), (8, 8, 3), background="no colour")
    with pytest.raises(ValueError, match=r"\Atest_percent must be 0 to 100, got 101\Z"):
        folder(str(pictures), (8, 8, 3), test_percent=101)
    (pictures / "part_0" / "00.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"\A.*00\.png cannot be read as an image.*\Z"):
        folder(str(pictures), (8, 8, 3)).open("train")[0]


def test_what_cannot_be_read_stops_before_any_picture_is_read_unless_it_is_skipped(pictures):
    with (pictures / "part_0" / "large.png").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ValueError, match=r"\A.*/part_0/large\.png has 2\.0 GiB, more than .*\Z"):
        folder(str(pictures), (8, 8, 3)).open("train")
    data = folder(str(pictures), (8, 8, 3), on_bad_picture="skip")
    assert len(data.open("train")) == 30 and ".png broken 1" in data.listing().report


@pytest.mark.parametrize("form", ["folder", "zip", "zip of the folder"])
def test_the_class_is_the_first_level_subfolder(pictures, tmp_path, form):
    (pictures / "part_1" / "deeper").mkdir()
    (pictures / "part_1" / "01.png").rename(pictures / "part_1" / "deeper" / "01.png")
    (pictures / "empty").mkdir()
    path = pictures
    if form != "folder":
        base = None if form == "zip" else pictures.name
        path = shutil.make_archive(str(tmp_path / "archive"), "zip", pictures if base is None else tmp_path, base)
    data = folder(str(path), (8, 8, 3), labels=True)
    assert data.num_classes == 2
    for example in data.open("train"):
        assert example["label"].dtype == np.int32
        assert example["label"] == example["image"][0, 0, 2] % 2  # the number of the picture
    assert data.listing().report.endswith(", 2 classes from subfolders")


def test_classes_that_do_not_fit_are_refused_in_one_line(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"\A.* has 2 subfolders with pictures, not 3: set num_classes=2\Z"):
        folder(str(pictures), (8, 8, 3), labels=True, num_classes=3).open("train")
    with pytest.raises(ValueError, match=r"\A.* has 1 picture outside of subfolders, such as new\.png: .*\Z"):
        Image.new("RGB", (9, 9)).save(pictures / "new.png")
        folder(str(pictures), (8, 8, 3), labels=True)
    with pytest.raises(ValueError, match=r"\A.*part_0 has 15 pictures outside of subfolders, such as 00\.png: .*\Z"):
        folder(str(pictures / "part_0"), (8, 8, 3), labels=True)
    (pictures / "new.png").unlink()
    shutil.rmtree(pictures / "part_1")
    with pytest.raises(ValueError, match=r"\A.* has 1 subfolder with pictures: labels need at least two, .*\Z"):
        folder(str(pictures), (8, 8, 3), labels=True)


def test_with_a_number_of_classes_no_folder_is_needed_before_it_is_opened(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert folder(nowhere, (8, 8, 3), labels=True, num_classes=3).num_classes == 3
    with pytest.raises(
        FileNotFoundError, match=r"\A.*nowhere is neither a folder nor a zip.*, or set num_classes: .*\Z"
    ):
        folder(nowhere, (8, 8, 3), labels=True)


def test_a_random_part_has_the_full_height_and_is_always_the_same(pictures):
    """Of a width of 12, 8 pixels are kept: their red rises by 20 each, so the first states the position."""
    data = folder(str(pictures), (8, 8, 3), crop="random")
    positions = [int(example["image"][0, 0, 0]) for example in data.open("train")]
    assert min(positions) < 20 and max(positions) > 60
    again = folder(str(pictures), (8, 8, 3), crop="random").open("train")
    assert [int(example["image"][0, 0, 0]) for example in again] == positions


class TestListing:
    def test_it_counts_pictures_and_what_was_left_out(self, tmp_path):
        good = odd_pictures.write(tmp_path / "odd")
        data = folder(str(tmp_path / "odd"), (8, 8, 3), on_bad_picture="skip")
        assert data.listing().report == odd_pictures.REPORT
        assert set(data.open("train").names) == set(good)

    def test_the_test_split_is_counted(self, pictures):
        data = folder(str(pictures), (8, 8, 3), test_percent=20)
        number = len(data.open("test"))
        assert data.listing().report.startswith(f"30 pictures, {number} of them for test, 2 files left out (")

    def test_it_is_the_same_wherever_and_whenever_the_files_were_written(self, pictures, tmp_path):
        here = folder(str(pictures), (8, 8, 3), 20).listing()
        shutil.copytree(pictures, tmp_path / "moved", copy_function=shutil.copyfile)
        archive = shutil.make_archive(str(tmp_path / "archive"), "zip", pictures)
        for path in (tmp_path / "moved", archive):
            assert folder(str(path), (8, 8, 3), 20).listing() == here

    @pytest.mark.parametrize("change", ["added", "removed", "renamed", "size"])
    def test_it_changes_with_the_files(self, pictures, change):
        before, one = folder(str(pictures), (8, 8, 3)).listing(), pictures / "part_0" / "00.png"
        if change == "added":
            shutil.copy(one, pictures / "part_0" / "new.png")
        elif change == "removed":
            one.unlink()
        elif change == "renamed":
            one.rename(one.with_name("new.png"))
        else:
            one.write_bytes(one.read_bytes() + b"1")
        assert folder(str(pictures), (8, 8, 3)).listing().digest != before.digest

    def test_it_changes_with_the_options_and_not_with_other_files(self, pictures):
        options = [
            {},
            {"crop": "random"},
            {"crop": (0, 0, 8, 8)},
            {"background": "black"},
            {"labels": True},
            {"test_percent": 20},
        ]
        digests = {folder(str(pictures), (8, 8, 3), **each).listing().digest for each in options}
        assert len(digests | {folder(str(pictures), (8, 8, 1)).listing().digest}) == 7
        (pictures / "more.txt").write_text("")
        assert folder(str(pictures), (8, 8, 3)).listing().digest in digests

    def test_broken_pictures_that_are_skipped_are_no_examples(self, pictures):
        before = folder(str(pictures), (8, 8, 3)).listing().digest
        (pictures / "part_0" / "broken.png").write_text("")
        assert folder(str(pictures), (8, 8, 3), on_bad_picture="skip").listing().digest == before


def test_odd_pictures_have_the_pixels_that_their_files_state(tmp_path):
    good = odd_pictures.write(tmp_path / "odd")
    source = folder(str(tmp_path / "odd"), (8, 8, 3), on_bad_picture="skip").open("train")
    for name, example in zip(source.names, source, strict=True):
        difference = np.abs(example["image"].astype(float) - good[name])
        assert difference.max() < (0.51 if good[name].dtype == float else 0.01), name


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
