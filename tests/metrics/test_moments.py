"""Moments: those of numpy, whatever the parts and their order; the jackknife's error is the spread of repetitions."""

import numpy as np
import pytest

from ddpm_jax.metrics import block_moments, jackknife, merge, moments

FEATURES = np.random.default_rng(0).normal(size=(800, 6)).astype(np.float32) * np.arange(1, 7, dtype=np.float32) + 100


@pytest.mark.parametrize("shards", [1, 2, 8, 800])
def test_shards_in_any_order_merge_to_the_moments_of_all(shards):
    random = np.random.default_rng(shards)
    cuts = np.sort(random.choice(np.arange(1, 800), shards - 1, replace=False))
    parts = [moments(part) for part in np.split(FEATURES, cuts)]
    expected = np.cov(FEATURES.astype(np.float64), rowvar=False)
    for _ in range(3):
        merged = merge(*[parts[k] for k in random.permutation(shards)])
        assert merged.count == 800
        np.testing.assert_allclose(merged.mean, FEATURES.mean(axis=0, dtype=np.float64), rtol=1e-12)
        np.testing.assert_allclose(merged.covariance, expected, rtol=1e-9, atol=1e-9 * expected.max())


def test_blocks_hold_each_vector_once():
    np.testing.assert_allclose(merge(*block_moments(FEATURES, 7)).covariance, moments(FEATURES).covariance, rtol=1e-9)


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(ValueError, match="without the number"):
        merge(moments(FEATURES), moments(FEATURES)._replace(count=None))
    with pytest.raises(ValueError, match="got none"):
        moments(FEATURES[:0])
    with pytest.raises(ValueError, match="blocks=3 of 2"):
        block_moments(FEATURES[:2], 3)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    """With a block for each example, exactly."""
    x = FEATURES[:, :1].astype(np.float64)
    error = jackknife(lambda some: some.mean(axis=0), x, blocks=800)
    np.testing.assert_allclose(error, x.std(ddof=1) / np.sqrt(800), rtol=1e-9)


def test_the_jackknife_of_a_difference_adds_the_variances_of_both_sets():
    a, b = FEATURES[:500, :1].astype(np.float64), FEATURES[500:, 1:2].astype(np.float64)
    difference = jackknife(lambda x, y: x.mean(axis=0) - y.mean(axis=0), a, b, blocks=20)
    apart = [jackknife(lambda x: x.mean(axis=0), each, blocks=20) for each in (a, b)]
    np.testing.assert_allclose(difference, np.hypot(*apart), rtol=1e-9)
