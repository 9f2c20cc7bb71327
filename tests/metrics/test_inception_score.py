"""The Inception Score: its limits, and the error that repetitions have."""

import numpy as np
import pytest

from ddpm_jax.metrics import inception_score


def test_between_one_and_the_number_of_classes():
    constant = np.tile(np.random.default_rng(0).normal(size=7), (50, 1))
    sure = np.tile(1e4 * np.eye(7), (50, 1))
    for logits, expected in ((constant, 1), (sure, 7)):
        score = inception_score(logits, splits=5, seed=None)
        np.testing.assert_allclose([score.mean, score.whole], expected, rtol=1e-9)
        np.testing.assert_allclose([score.spread, score.error], 0, atol=1e-6)


def test_a_common_shift_of_the_logits_of_an_image_does_not_matter():
    logits = np.random.default_rng(1).normal(size=(40, 5))
    shifted = logits + np.random.default_rng(2).normal(size=(40, 1))
    np.testing.assert_allclose(inception_score(shifted), inception_score(logits), rtol=1e-9)


def test_the_score_is_the_mutual_information_of_image_and_class():
    """Half of the images are sure of one of two classes, half are undecided: log IS = H(1/2) / 2."""
    logits = np.tile(np.array([[0, -1e4], [-1e4, 0], [0, 0], [0, 0]]), (10, 1))
    np.testing.assert_allclose(inception_score(logits).whole, np.sqrt(2), rtol=1e-9)


def test_the_error_is_the_spread_of_repetitions():
    random = np.random.default_rng(3)
    scores = [inception_score(2 * random.normal(size=(500, 5)), splits=20) for _ in range(100)]
    spread = np.std([score.whole for score in scores])
    assert 0.8 < np.mean([score.error for score in scores]) / spread < 1.25
    with pytest.raises(ValueError, match="blocks=10 of 3"):
        inception_score(np.zeros((3, 5)))
