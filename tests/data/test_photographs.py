"""Colour patches: they tile the photographs of the packages, and none is shared between the splits."""

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from ddpm_jax.data import load, photographs
from ddpm_jax.data.dataset import check_examples
from ddpm_jax.data.photographs import FILES

INSTALLED = ("china", "flower", "grace_hopper")


@pytest.fixture(scope="module")
def splits():
    return {split: load(photographs(names=INSTALLED).open(split)) for split in ("train", "test")}


def test_the_patches_of_both_splits_tile_a_photograph(splits):
    """Reassembled, they are the photograph, but for the rows at the bottom that make no patch: no pixel is twice."""
    tiled = [
        part["image"][part["label"] == 1].reshape(13, -1, 32, 32, 3).swapaxes(1, 2).reshape(416, -1, 3)
        for part in splits.values()
    ]
    np.testing.assert_array_equal(np.concatenate(tiled, axis=1), load_sample_image("flower.jpg")[:416])


def test_a_smaller_stride_adds_training_patches_only(splits):
    china = load_sample_image("china.jpg")
    dense = photographs(stride=16, names=("china",))
    train, test = (load(dense.open(split))["image"] for split in ("train", "test"))
    np.testing.assert_array_equal(test, splits["test"]["image"][splits["test"]["label"] == 0])
    assert len(train) == 31 * 25  # (512 - 32) / 16 + 1 across, and down
    np.testing.assert_array_equal(train[1], china[:32, 16:48])
    np.testing.assert_array_equal(train[-1], china[384:416, 480:512])


def test_all_photographs_make_the_patches_that_the_docstring_states():
    pytest.importorskip("skimage")
    data = photographs()
    assert [len(data.open(split)) for split in ("train", "test")] == [2496, 608] and data.num_classes == len(FILES)
    for split in ("train", "test"):
        check_examples(data, split)


def test_what_is_wrong_is_named(monkeypatch):
    monkeypatch.setitem(FILES, "coffee", ("no-such-package", "coffee.png"))
    with pytest.raises(FileNotFoundError, match="the photograph coffee is part of no-such-package: pip install"):
        photographs(names=("coffee",)).open("train")
    with pytest.raises(ValueError, match=r"names must be of astronaut.* got tea"):
        photographs(names=("china", "tea"))
    with pytest.raises(ValueError, match="got none"):
        photographs(names=())
    with pytest.raises(ValueError, match="size must be 1 to 128 for photographs, got 129"):
        photographs(129)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        photographs(stride=0)
