"""Examples from picture files: decoded once, kept, decoded again where anything changed; broken ones skipped."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import Data, cache, folder, images, load, load_all

SHAPE = (6, 6, 3)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """40 pictures, each of one grey, its number, in two subfolders; number 7 is broken."""
    root = tmp_path / "pictures"
    for number in range(40):
        path = root / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 9), number).save(path)
    (root / "b" / "07.png").write_text("broken")
    return root


@pytest.fixture
def decoded(monkeypatch) -> set[str]:
    """The names of the files that were decoded since the start of the test; run-time type checks decode some twice."""
    names, decode = set(), images.Rules.image
    monkeypatch.setattr(
        images.Rules, "image", lambda self, content, name: names.add(name) or decode(self, content, name)
    )
    return names


def skipping(pictures: Path, **options) -> Data:
    return folder(str(pictures), SHAPE, labels=True, on_bad_picture="skip", **options)


def greys(arrays: dict[str, np.ndarray]) -> list[int]:
    return arrays["image"][:, 0, 0, 0].tolist()


def all_of(data: Data, workers: int = 4, **options) -> dict[str, np.ndarray]:
    return load_all(data.open("train"), workers, **options)


EXPECTED = [*range(0, 40, 2), *(number for number in range(1, 40, 2) if number != 7)]


def test_all_examples_by_threads_are_those_one_by_one(pictures):
    whole = all_of(skipping(pictures))
    assert greys(whole) == EXPECTED and whole["label"].tolist() == [number % 2 for number in EXPECTED]
    one_by_one = load(skipping(pictures).open("train"))
    assert whole.keys() == one_by_one.keys()
    for feature, rows in whole.items():
        np.testing.assert_array_equal(rows, one_by_one[feature])
        assert rows.dtype == one_by_one[feature].dtype


def test_the_second_time_nothing_is_decoded(pictures, decoded):
    first = all_of(skipping(pictures))
    assert sorted(decoded) == sorted(f"{'ab'[number % 2]}/{number:02d}.png" for number in range(40))
    decoded.clear()
    again = skipping(pictures)
    assert again.listing().report == "39 pictures, 1 file left out (.png broken 1), 2 classes from subfolders"
    second = all_of(again)
    assert not decoded
    np.testing.assert_array_equal(first["image"], second["image"])


def test_without_a_cache_folder_the_result_is_the_same(pictures, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert greys(all_of(skipping(pictures))) == EXPECTED


def test_a_damaged_cache_is_decoded_again(pictures, decoded):
    all_of(skipping(pictures))
    for path in cache.folder().iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    decoded.clear()
    assert greys(all_of(skipping(pictures))) == EXPECTED and len(decoded) == 40


@pytest.mark.parametrize("change", ["content", "renamed", "crop", "background", "shape"])
def test_whatever_changes_the_pixels_is_decoded_again(pictures, decoded, change):
    (pictures / "b" / "07.png").unlink()
    all_of(folder(str(pictures), SHAPE))
    decoded.clear()
    one, options, shape = pictures / "a" / "02.png", {}, SHAPE
    if change == "content":  # the same size and time of modification, as a copy may have
        size, before = one.stat().st_size, one.stat().st_mtime_ns
        Image.new("L", (8, 9), 3).save(one)
        os.utime(one, ns=(before, before))
        assert one.stat().st_size == size
    elif change == "renamed":
        one.rename(pictures / "a" / "99.png")
    else:
        options = {"crop": {"crop": "random"}, "background": {"background": "black"}}.get(change, {})
        shape = (5, 5, 3) if change == "shape" else SHAPE
    found = greys(all_of(folder(str(pictures), shape, **options)))
    assert len(decoded) == 39
    assert found.count(3) == (2 if change == "content" else 1)


def test_the_first_broken_picture_stops_with_its_name(pictures):
    with pytest.raises(ValueError, match=r"\A.*/b/07\.png cannot be read as an image: its format is unknown\Z"):
        all_of(folder(str(pictures), SHAPE))


def test_a_failing_disk_is_no_broken_picture(pictures, monkeypatch):
    def fail(root, file):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(images, "read", fail)
    with pytest.raises(OSError, match=r"/a/00\.png cannot be read from the disk: Input/output error"):
        skipping(pictures).open("train")


def test_the_progress_adds_up_to_all_pictures(pictures):
    counted = []

    def track(items: Sequence, unit: str, total: int) -> Iterator:
        counted.append((unit, total))
        yield from items

    data = skipping(pictures)
    data.listing(track)
    all_of(data, track=track)  # from the cache
    assert {unit for unit, _ in counted} == {"image"}
    assert sum(total for _, total in counted) == 40


def test_a_large_split_is_not_kept_but_its_broken_pictures_are_remembered(pictures, decoded, monkeypatch):
    monkeypatch.setattr(cache, "LARGEST", 1000)
    assert len(skipping(pictures).open("train")) == 39 and len(decoded) == 40
    decoded.clear()
    assert len(skipping(pictures).open("train")) == 39 and not decoded
    decoded.clear()
    assert greys(all_of(skipping(pictures))) == EXPECTED and len(decoded) == 39
