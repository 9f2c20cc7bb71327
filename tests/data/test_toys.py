"""Synthetic data sets: known facts about their distributions, and reproducibility."""

import math

import numpy as np
import pytest

from ddpm_jax.data import dead_leaves, heartbeat, load, swiss_roll


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_heartbeat_has_five_sequences_with_a_pulse_in_every_fifth_bin(split):
    bits = load(heartbeat(copies=3).open(split))["image"]
    assert bits.shape == (15, 20) and bits.dtype == np.uint8
    sequences, counts = np.unique(bits, axis=0, return_counts=True)
    assert counts.tolist() == [3] * 5 and bits.mean() == 0.2
    assert all(np.diff(np.flatnonzero(row)).tolist() == [5, 5, 5] for row in sequences)


def test_the_swiss_roll_is_a_spiral_of_variance_one():
    points = load(swiss_roll().open("train"))["image"]
    assert points.dtype == np.float32
    np.testing.assert_allclose(points.var(axis=0).mean(), 1, rtol=0.02)
    radius = np.hypot(*points.T)
    turn = np.arctan2(points[:, 1], points[:, 0])
    # the radius is the angle, up to whole turns and a scale; the largest is 4.5 pi
    scale = 4.5 * math.pi / radius.max()
    off = (radius * scale - turn + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(off).max() < 1e-2
    noisy = load(swiss_roll(noise=0.1).open("train"))["image"]
    assert (noisy - points).std() == pytest.approx(0.1, rel=0.05)


def test_the_splits_are_different_points():
    train, test = (load(swiss_roll().open(split))["image"] for split in ("train", "test"))
    assert not set(map(tuple, train.tolist())) & set(map(tuple, test.tolist()))


def test_dead_leaves_are_discs_that_occlude_one_another():
    source = dead_leaves(size=32, num_train=40, num_test=3).open("train")
    images = load(source)["image"]
    assert images.shape == (40, 32, 32, 1) and len(np.unique(images)) > 200
    # neighbouring pixels are equal inside a disc and independent at an edge
    same = (images[:, :, 1:] == images[:, :, :-1]).mean()
    assert 0.5 < same < 0.9
    np.testing.assert_array_equal(source[7]["image"], images[7])
    np.testing.assert_array_equal(source[-1]["image"], images[-1])
    with pytest.raises(IndexError):
        source[40]
    test = dead_leaves(size=32, num_train=40, num_test=3).open("test")
    assert len(test) == 3 and not np.array_equal(test[0]["image"], images[0])


def test_larger_leaves_are_rarer():
    """The share of radii above r is (smallest / r)^2: there are fewer edges as the smallest radius grows."""

    def edges(smallest):
        images = load(dead_leaves(size=32, num_train=20, smallest=smallest).open("train"))["image"]
        return (images[:, :, 1:] != images[:, :, :-1]).mean()

    assert edges(1.0) > 1.2 * edges(3.0)
