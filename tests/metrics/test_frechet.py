"""The Frechet distance's laws: a metric's, and its value where it is known."""

import numpy as np
import pytest

from ddpm_jax.metrics import Moments, block_moments, frechet, frechet_at_infinity, frechet_distance, moments

A, B = np.array([1.0, 4, 0.25, 0]), np.array([2.0, 1, 0, 3])
POINTS = np.random.default_rng(0).normal(size=(500, 4))


def test_a_cloud_is_at_no_distance_from_itself_and_a_shift_counts_its_square():
    assert abs(frechet_distance(POINTS, POINTS)) < 1e-9
    np.testing.assert_allclose(frechet_distance(POINTS, POINTS + np.array([1, 0, -2, 0])), 5, rtol=1e-9)


def test_scaling_by_k_costs_the_variance_times_k_minus_one_squared():
    """Commuting covariances: the distance is the sum of squared differences of the standard deviations."""
    centred = POINTS - POINTS.mean(axis=0)
    expected = (3 - 1) ** 2 * np.trace(np.cov(centred, rowvar=False))
    np.testing.assert_allclose(frechet_distance(centred, 3 * centred), expected, rtol=1e-9)


def test_symmetric_and_blind_to_rotation():
    other = POINTS @ np.diag([2.0, 1, 0, 0.5]) + 0.3  # singular, as pixels that never change are
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    distance = frechet_distance(POINTS, other)
    np.testing.assert_allclose(frechet_distance(other, POINTS), distance, rtol=1e-6)
    np.testing.assert_allclose(frechet_distance(POINTS @ turn, other @ turn), distance, rtol=1e-6)


@pytest.mark.parametrize("num, other", [(7, 9), (7, 300), (300, 7), (1, 7)])
def test_few_vectors_of_many_dimensions_have_the_distance_of_their_moments(num, other):
    """It is computed without covariances, from the vectors alone."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(num, 40)), random.normal(1.0, 2.0, size=(other, 40))
    np.testing.assert_allclose(frechet_distance(a, b), frechet_distance(moments(a), moments(b)), rtol=1e-6)


def gaussian(seed: int, num: int, dims: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, dims))


def test_gaussians_with_commuting_covariances_have_a_closed_form():
    turn = np.linalg.qr(gaussian(1, 4))[0]
    a, b = (Moments(mean, turn * values @ turn.T, None) for mean, values in ((np.zeros(4), A), (np.ones(4), B)))
    expected = 4 + np.square(np.sqrt(A) - np.sqrt(B)).sum()
    np.testing.assert_allclose(frechet_distance(a, b), expected, rtol=1e-7)  # the root of a rounding error
    np.testing.assert_allclose(frechet_distance(POINTS, moments(POINTS + 1)), 4, rtol=1e-9)


def test_the_error_is_the_spread_of_repetitions():
    truth = Moments(np.full(4, 0.3), np.diag([1.0, 2, 0.5, 1]), None)
    estimates = [frechet(block_moments(gaussian(seed, 1000), 10), truth) for seed in range(60)]
    spread = np.std([estimate.value for estimate in estimates], ddof=1)
    assert 0.75 < np.mean([estimate.error for estimate in estimates]) / spread < 1.25


def test_the_distance_at_infinity_is_the_true_one_within_its_error():
    """The plain distance of 400 samples is biased by far more than the error; the extrapolated one is not."""
    dims = 30
    truth = Moments(np.zeros(dims), np.diag(np.linspace(0.5, 2, dims)), None)
    expected = np.square(1 - np.sqrt(np.linspace(0.5, 2, dims))).sum()
    runs = [block_moments(gaussian(seed, 400, dims)) for seed in range(20)]
    found = [frechet_at_infinity(blocks, truth) for blocks in runs]
    off = np.array([(each.value - expected) / each.error for each in found])
    assert np.abs(off.mean()) < 1 and 0.4 < off.std() < 1.8
    plain = [frechet(blocks, truth) for blocks in runs]
    assert np.mean([(each.value - expected) / each.error for each in plain]) > 3
    assert found[0].counts[-1] == 400 and found[0].slope > 0


def test_four_samples_a_feature_suffice_for_a_line():
    """The fits of the jackknife have a tenth less, which is no reason to refuse."""
    blocks = block_moments(gaussian(0, 4 * 30, 30), 20)
    assert np.isfinite(frechet_at_infinity(blocks, moments(gaussian(1, 500, 30))).error)


def test_too_few_samples_for_a_line_are_refused():
    with pytest.raises(ValueError, match="have 120"):
        frechet_at_infinity(block_moments(gaussian(0, 100, 30)), moments(gaussian(1, 100, 30)))
    with pytest.raises(ValueError, match="10 blocks"):
        frechet_at_infinity(block_moments(POINTS, 5), moments(POINTS))
    with pytest.raises(ValueError, match="2 blocks"):
        frechet([moments(POINTS)], moments(POINTS))


def test_no_vectors_are_refused():
    with pytest.raises(ValueError, match="one feature vector or more"):
        frechet_distance(np.zeros((0, 40)), np.zeros((7, 40)))
