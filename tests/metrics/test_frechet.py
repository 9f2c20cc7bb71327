"""The Frechet distance's laws: a metric's, and its value where it is known."""

import numpy as np

from ddpm_jax.metrics import frechet_distance

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
