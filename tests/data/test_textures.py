"""Patches of photographs: all of them, none shared between the splits."""

import sys

import numpy as np
import pytest

from ddpm_jax.data import load, textures


def test_patches_come_from_the_photographs_in_order():
    data = pytest.importorskip("skimage").data
    train, test = (textures(28).open(split) for split in ("train", "test"))
    np.testing.assert_array_equal(train[0]["image"][..., 0], data.brick()[:28, :28])
    np.testing.assert_array_equal(train[1]["image"][..., 0], data.brick()[:28, 4:32])
    np.testing.assert_array_equal(train[-1]["image"][..., 0], data.gravel()[484:512, 356:384])
    np.testing.assert_array_equal(test[-1]["image"][..., 0], data.gravel()[476:504, 468:496])
    assert load(test)["image"].shape == (3 * 18 * 4, 28, 28, 1) and len(train) == 3 * 122 * 90


def test_the_splits_share_no_pixel():
    """Train patches end at column 384, where the test patches begin."""
    data = pytest.importorskip("skimage").data
    train, test = (load(textures(32).open(split))["image"][..., 0] for split in ("train", "test"))
    left, right = data.grass()[:, :384], data.grass()[:, 384:]
    third = len(train) // 3
    assert all(_is_in(patch, left) for patch in train[third : third + 5])
    third = len(test) // 3
    assert all(_is_in(patch, right) for patch in test[third : 2 * third])


def _is_in(patch: np.ndarray, photograph: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(photograph, patch.shape)
    return bool((windows[:, :, 0] == patch[0]).all(axis=-1).any())


def test_without_scikit_image_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(FileNotFoundError, match=r"pip install .*textures"):
        textures().open("train")
    with pytest.raises(ValueError, match="size must be 1 to 128 for textures, got 200"):
        textures(200)
