"""KID: unbiased, the same in blocks as at once, its error the spread of repetitions."""

import numpy as np
import pytest

from ddpm_jax.metrics import kid, kid_subsets


def features(seed: int, num: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(num, 5)) + shift).astype(np.float32)


def of_pairs(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, pair by pair."""
    kernel = lambda a, b: (float(np.dot(a.astype(float), b.astype(float))) / len(a) + 1) ** 3  # noqa: E731
    own = [np.mean([kernel(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (x, y)]
    return float(sum(own) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_blocks_of_any_size_give_the_definition():
    x, y = features(0, 23), features(1, 17, 0.5)
    for at_once in (1, 7, 100):
        np.testing.assert_allclose(kid(x, y, at_once).value, of_pairs(x, y), atol=2e-6)
    np.testing.assert_allclose(kid_subsets(x[:17], y, subsets=2, size=17).mean, of_pairs(x[:17], y), atol=2e-6)


def test_the_jackknife_leaves_out_each_vector():
    x, y = features(0, 9), features(1, 8, 0.5)
    without = [[of_pairs(np.delete(x, i, 0), y) for i in range(9)], [of_pairs(x, np.delete(y, j, 0)) for j in range(8)]]
    variance = sum((len(values) - 1) * np.var(values) for values in without)
    np.testing.assert_allclose(kid(x, y).error, np.sqrt(variance), rtol=1e-4)


def test_unbiased_for_equal_distributions_and_its_error_is_the_spread_otherwise():
    null = np.array([kid(features(2 * k, 60), features(2 * k + 1, 40)).value for k in range(100)])
    assert abs(null.mean()) < 3 * null.std() / np.sqrt(100)
    apart = [kid(features(2 * k, 60), features(2 * k + 1, 40, 0.5)) for k in range(100)]
    spread = np.std([estimate.value for estimate in apart])
    assert 0.8 < np.sqrt(np.mean([estimate.error**2 for estimate in apart])) / spread < 1.25


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="2 and 9"):
        kid(features(0, 2), features(1, 9))
    with pytest.raises(ValueError, match="subsets of 10"):
        kid_subsets(features(0, 20), features(1, 9), size=10)
