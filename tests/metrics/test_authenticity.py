"""Whether samples are copies: the limits, and the geometry of nearest neighbours for fresh ones."""

import numpy as np
import pytest

from ddpm_jax.metrics import authenticity


def uniform(seed: int, num: int, dims: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(num, dims)).astype(np.float32)


def test_copies_are_not_authentic_and_are_nearer_than_any_test_example():
    training, test = uniform(0, 400, 3), uniform(1, 100, 3)
    found = authenticity(training[50:150], training, test)
    assert found.auth_pct == (0, 0) and found.closer == (1, 0) and found.generated == 0
    np.testing.assert_array_equal(found.nearest, np.arange(50, 150))


@pytest.mark.parametrize(("dims", "mutual"), [(1, 2 / 3), (2, 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3)))])
def test_fresh_examples_are_authentic_unless_neighbours_are_mutual(dims, mutual):
    """The probability that the neighbour of a point has it as neighbour: 2/3, 0.6215, ... 1/2 (Cox 1981)."""
    found = authenticity(uniform(0, 4000, dims), uniform(1, 4000, dims), uniform(2, 4000, dims))
    # fresh examples share neighbours, so they vary more than the error, which has the training set fixed
    assert abs(found.auth_pct.value - 100 * (1 - mutual)) < 4 * found.auth_pct.error
    assert abs(found.closer.value - 0.5) < 3 * found.closer.error
    assert 0.95 < found.generated / found.test < 1.05


def test_half_copies_are_seen():
    training, test = uniform(0, 2000, 8), uniform(1, 500, 8)
    mixed = np.concatenate([training[:250], uniform(2, 250, 8)])
    found = authenticity(mixed, training, test)
    assert abs(found.closer.value - 0.75) < 4 * found.closer.error
    assert found.auth_pct.value < 30


def test_the_error_of_the_comparison_is_the_spread_of_repetitions():
    training = uniform(0, 300, 2)
    found = [authenticity(uniform(2 * k + 1, 80, 2), training, uniform(2 * k + 2, 50, 2)) for k in range(60)]
    for name in ("auth_pct", "closer"):
        spread = np.std([getattr(each, name).value for each in found])
        assert 0.75 < np.mean([getattr(each, name).error for each in found]) / spread < 1.3


def test_one_example_is_refused():
    with pytest.raises(ValueError, match="got 1, 5, 5"):
        authenticity(uniform(0, 1, 2), uniform(1, 5, 2), uniform(2, 5, 2))
