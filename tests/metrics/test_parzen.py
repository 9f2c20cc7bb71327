"""The Parzen-window estimate: its value for a density that is known."""

import jax.numpy as jnp
import numpy as np

from ddpm_jax.metrics import parzen
from ddpm_jax.metrics.parzen import log_density


def test_one_centre_is_a_gaussian():
    x = np.array([[0.0, 0.0], [1.0, -2.0]])
    expected = -0.5 * np.square(x).sum(axis=1) / 0.09 - np.log(2 * np.pi * 0.09)
    np.testing.assert_allclose(log_density(jnp.asarray(x), jnp.zeros((1, 2)), 0.3), expected, rtol=1e-5)


def test_the_estimate_of_the_true_density_is_its_entropy():
    """With many Gaussian points as centres, the mean log density is near -H, and below it."""
    random = np.random.default_rng(0)
    samples, held_out, test = (jnp.asarray(random.normal(size=(n, 2)), jnp.float32) for n in (20_000, 500, 2000))
    mean, error, width = parzen(samples, held_out, test)
    entropy = np.log(2 * np.pi * np.e)
    assert error is not None
    assert -entropy - 0.1 < mean < -entropy + 3 * error
    assert 0.1 <= width < 0.25


def test_a_single_example_has_no_standard_error():
    samples = jnp.zeros((3, 2))
    assert parzen(samples, samples, samples[:1])[1] is None
