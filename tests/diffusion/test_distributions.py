"""Normal and Bernoulli: density, divergence, samples and tilt, each by a law that it must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion.distributions import Bernoulli, Normal

MEANS, VARIANCES = np.array([-1.5, 0.0, 0.4]), np.array([0.01, 1.0, 2.5])


def normal(dtype=np.float64):
    return Normal(jnp.asarray(MEANS, dtype), jnp.asarray(VARIANCES, dtype))


def expectation(function, dist, order=20):
    """E[function(x)] under `dist` by Gauss-Hermite quadrature, exact for polynomials below degree 2 * order."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    values = jax.vmap(lambda node: function(dist.push(jnp.full(dist.mean.shape, node))))(jnp.asarray(nodes))
    return jnp.tensordot(weights / weights.sum(), values, 1)


def test_density_has_mass_one_and_its_mean_and_variance(x64):
    x = np.linspace(-20, 20, 400001)[:, None]
    log_density = Normal(jnp.asarray(MEANS[None]), jnp.asarray(VARIANCES[None])).log_prob(jnp.asarray(x))
    density = np.exp(log_density) * 1e-4
    np.testing.assert_allclose(density.sum(0), 1, rtol=1e-10)
    np.testing.assert_allclose((density * x).sum(0), MEANS, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose((density * (x - MEANS[None]) ** 2).sum(0), VARIANCES, rtol=1e-10)


def test_push_changes_variables(x64):
    """log p(push(z)) + log |d push / dz| = log N(z; 0, 1)."""
    dist, noise = normal(), jnp.array([-2.0, 0.3, 1.7])
    slope = jnp.diagonal(jax.jacobian(dist.push)(noise))
    standard = Normal(jnp.zeros(3), jnp.ones(3)).log_prob(noise)
    np.testing.assert_allclose(dist.log_prob(dist.push(noise)) + jnp.log(slope), standard, rtol=1e-12)


def test_push_differentiates_expectations(x64):
    """Price's theorem: dE[f(x)]/dvariance = E[f'']/2 and dE[f(x)]/dmean = E[f'], here for f = x^3."""
    by_mean, by_variance = (
        jnp.diagonal(part) for part in jax.jacobian(lambda dist: expectation(lambda x: x**3, dist))(normal())
    )
    np.testing.assert_allclose(by_mean, expectation(lambda x: 3 * x**2, normal()), rtol=1e-11)
    np.testing.assert_allclose(by_variance, expectation(lambda x: 3 * x, normal()), rtol=1e-11, atol=1e-12)


def test_mode_is_where_the_density_is_flat_and_highest(x64):
    dist = normal()
    np.testing.assert_array_equal(jax.grad(lambda x: dist.log_prob(x).sum())(dist.mode()), jnp.zeros(3))
    assert jnp.all(dist.log_prob(dist.mode()) > dist.log_prob(dist.mode() + 1e-3))


def test_kl_is_the_expected_log_ratio(x64):
    p, q = normal(), Normal(jnp.array([0.3, -0.2, 0.4]), jnp.array([0.5, 3.0, 0.1]))
    by_quadrature = expectation(lambda x: p.log_prob(x) - q.log_prob(x), p)
    np.testing.assert_allclose(p.kl(q), by_quadrature, rtol=1e-12)
    np.testing.assert_array_equal(p.kl(p), jnp.zeros(3))


def test_kl_of_one_pair(x64):
    """The value of a float64 computation apart from this one; its arguments were log variances."""
    p, q = (Normal(jnp.array(mean), jnp.exp(jnp.array(log_var))) for mean, log_var in [(1.0, 0.5), (-1.0, -0.3)])
    np.testing.assert_allclose(p.kl(q), 2.91248807939824, rtol=1e-14)


@pytest.mark.parametrize("excess", [1e-6, 1e-5, 1e-4, 1e-3])
def test_kl_of_like_variances_survives_float32(excess):
    """Near the end of the chain both variances agree to six digits, and the divergence is excess^2 / 4."""
    variance = np.float32(0.02)
    other = variance * np.float32(1 + excess)
    kl = Normal(jnp.zeros(1), jnp.full(1, variance)).kl(Normal(jnp.zeros(1), jnp.full(1, other)))
    ratio = np.float64(variance) / np.float64(other)
    # what is lost is the rounding of the ratio, 6e-8 of itself
    np.testing.assert_allclose(kl, (ratio - 1 - np.log(ratio)) / 2, rtol=1e-3, atol=1.2e-7 * excess)


def test_samples_have_the_mean_and_the_variance():
    count = 100_000
    dist = Normal(jnp.tile(normal(np.float32).mean, (count, 1)), normal(np.float32).variance[None])
    x = np.asarray(dist.sample(jax.random.key(0)), np.float64)
    assert np.all(np.abs(x.mean(0) - MEANS) < 5 * np.sqrt(VARIANCES / count))
    assert np.all(np.abs(x.var(0) / VARIANCES - 1) < 5 * np.sqrt(2 / count))


def test_each_key_of_a_batch_draws_for_its_own_example():
    dist = Normal(jnp.zeros((8, 3, 2)), jnp.ones((8, 1, 1)))
    whole = dist.sample(jax.random.split(jax.random.key(0), 8))
    part = Normal(dist.mean[2:5], dist.variance[2:5]).sample(jax.random.split(jax.random.key(0), 8)[2:5])
    np.testing.assert_array_equal(part, whole[2:5])
    assert len(np.unique(whole)) == whole.size


def test_no_variance_no_randomness():
    dist = Normal(jnp.arange(5.0), jnp.zeros(1))
    np.testing.assert_array_equal(dist.sample(jax.random.key(0)), dist.mode())


def test_tilting_multiplies_by_an_exponential(x64):
    """log p_tilted(x) - log p(x) - g x does not depend on x: it is the normaliser."""
    dist, gradient = normal(), jnp.array([2.0, -0.7, 0.3])
    x = jnp.linspace(-3, 3, 7)[:, None] * jnp.ones((1, 3))
    base, tilted = (jax.vmap(each.log_prob)(x) for each in (dist, dist.tilt(gradient)))
    normaliser = tilted - base - gradient[None] * x
    np.testing.assert_allclose(normaliser, normaliser[:1] * jnp.ones((7, 1)), rtol=1e-10)


def bernoulli(*one):
    return Bernoulli(jnp.array(one), 1 - jnp.array(one))


def test_bernoulli_is_a_distribution(x64):
    p, q, fair = bernoulli(0.3, 1e-9, 1.0), bernoulli(0.4, 0.4, 0.4), bernoulli(0.5, 0.5, 0.5)
    terms = [np.exp(p.log_prob(x)) * np.nan_to_num(p.log_prob(x) - q.log_prob(x)) for x in (jnp.zeros(3), jnp.ones(3))]
    np.testing.assert_allclose(p.kl(q), sum(terms), rtol=1e-9)
    np.testing.assert_array_equal(q.kl(q), jnp.zeros(3))
    np.testing.assert_allclose(q.entropy(), np.log(2) - q.kl(fair), rtol=1e-9)
    assert np.isfinite(jax.grad(lambda one: Bernoulli(one, 1 - one).kl(q).sum())(jnp.array([0.0, 0.5, 1.0]))).all()
    draws = np.asarray(bernoulli(*[0.3] * 20_000).sample(jax.random.key(0)))
    assert set(draws) == {0, 1} and abs(draws.mean() - 0.3) < 4 * np.sqrt(0.21 / 20_000)
    assert bernoulli(0.3, 0.5, 0.7).mode().tolist() == [0, 0, 1]


def test_bits_that_are_certain_stay_so_however_they_are_tilted():
    """Also where the other probability times the tilt is less than float32 holds."""
    certain = Bernoulli(jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 1.0, 0.0]))
    for size in (1.0, 90.0, 500.0, np.inf):
        tilted = certain.tilt(size * jnp.array([1.0, -1.0, -1.0, 1.0]))
        np.testing.assert_array_equal(tilted, certain)


def test_tilting_bits_multiplies_their_probabilities(x64):
    dist, r = Bernoulli(jnp.array(0.3), jnp.array(0.7)), np.array([0.2, 0.9])
    tilted = dist.tilt(jnp.log(r[1] / r[0]))
    np.testing.assert_allclose(tilted.one, 0.3 * r[1] / (0.3 * r[1] + 0.7 * r[0]), rtol=1e-12)
