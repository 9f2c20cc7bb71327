"""Bits: counted by hand, bit by bit and path by path."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import Bernoulli

BITS = np.array([0.0, 1.0])
RATES = [0.5, 0.2]


def schedule():
    return schedules.from_betas([0.1, 0.3, 0.05, 0.6], np.float64)


@jax.jit
def posterior(process, x_t, x_0, t, s):
    return process.posterior(x_t, x_0, t, s)


@jax.jit
def transition(process, x_s, s, t):
    return process.transition(x_s, s, t)


def matrix(process, s, t):
    """[from, to]: the transition matrix of one bit."""
    one = np.asarray(transition(process, jnp.asarray(BITS), s, t).one)
    return np.stack([1 - one, one], axis=1)


@pytest.mark.parametrize("rate", RATES)
def test_steps_compose_and_keep_the_base_rate(x64, rate):
    """Chapman-Kolmogorov, and the stationary distribution."""
    process = binomial.process(schedule(), rate)
    step = np.linalg.multi_dot([matrix(process, t - 1, t) for t in (1, 2, 3, 4)])
    np.testing.assert_allclose(matrix(process, 0, 4), step, rtol=1e-12)
    np.testing.assert_allclose(matrix(process, 1, 3), matrix(process, 1, 2) @ matrix(process, 2, 3), rtol=1e-12)
    stationary = np.array([1 - rate, rate])
    np.testing.assert_allclose(stationary @ matrix(process, 0, 4), stationary, rtol=1e-12)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("s, t", [(0, 1), (1, 2), (1, 4), (2, 3), (0, 4)])
def test_the_posterior_is_bayes_by_counting(x64, rate, s, t):
    """q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0)."""
    process = binomial.process(schedule(), rate)
    to_s = np.eye(2) if s == 0 else matrix(process, 0, s)
    x_0, x_t = np.array(list(product((0, 1), (0, 1)))).T
    joint = to_s[x_0] * matrix(process, s, t)[:, x_t].T
    found = jnp.stack(posterior(process, jnp.asarray(x_t, float), jnp.asarray(x_0, float), t, s)[::-1], axis=1)
    np.testing.assert_allclose(found, joint / joint.sum(axis=1, keepdims=True), rtol=1e-12, atol=1e-15)


def test_the_posterior_of_a_belief_is_that_of_the_chain(x64):
    """With E[x_0 | x_t] in the place of x_0: q(x_s | x_t) of data that are one with probability 0.7.

    As a number, or as a Bernoulli with both probabilities.
    """
    process, chance, s, t = binomial.process(schedule(), 0.2), 0.7, 1, 3
    data = np.array([1 - chance, chance])
    for x_t in (0, 1):
        belief = data * matrix(process, 0, t)[:, x_t]
        joint = (data @ matrix(process, 0, s)) * matrix(process, s, t)[:, x_t]
        for x_0 in (jnp.float64(belief[1] / belief.sum()), Bernoulli(*map(jnp.float64, belief[::-1] / belief.sum()))):
            got = process.posterior(jnp.float64(x_t), x_0, t, s)
            np.testing.assert_allclose([got.zero, got.one], joint / joint.sum(), rtol=1e-12)


# Sohl-Dickstein et al. 2015's schedule at T = 2000, by counting in float64: (rate, t, x_t, x_0, probability of one)
PUBLISHED = [
    (0.5, 1000, 0, 0, 0.0001663337),
    (0.5, 1000, 1, 0, 0.9985009990),
    (0.5, 1000, 0, 1, 0.0014990010),
    (0.5, 2, 0, 0, 6.2562557e-8),
    (0.5, 2, 1, 0, 0.4998749375),
    (0.5, 2000, 0, 0, 0.49975),
    (0.5, 2000, 1, 1, 0.50025),
    (0.2, 1000, 0, 0, 0.0000887113),
    (0.2, 1000, 1, 0, 0.9982015984),
    (0.2, 2000, 1, 0, 0.1999),
]


@pytest.mark.parametrize("rate, t, x_t, x_0, expected", PUBLISHED)
def test_the_posterior_at_the_paper_s_length_in_float32(rate, t, x_t, x_0, expected):
    process = binomial.process(schedules.steady(2000), rate)
    got = posterior(process, jnp.float32(x_t), jnp.float32(x_0), t, t - 1)
    np.testing.assert_allclose(got.one, expected, rtol=2e-4)
    np.testing.assert_allclose(got.one + got.zero, 1, rtol=1e-6)


def test_sampling_a_perfect_model_gives_the_data(x64):
    """Bits that are one with probability 0.85 and a network of the exact log odds: the samples have their mean."""
    process = binomial.process(schedules.steady(30, np.float64), 0.5)

    def network(x_t, t, condition):
        chance = process.marginal(jnp.ones_like(x_t), t).log_prob(x_t) - process.marginal(
            jnp.zeros_like(x_t), t
        ).log_prob(x_t)
        return jnp.log(0.85 / 0.15) + chance

    parameterization = parameterizations.fixed_last(process, parameterizations.logits(process))
    keys = jax.random.split(jax.random.key(0), 4000)
    sampler = samplers.ddpm(process, parameterization, network)
    x_T = process.prior((4000, 1)).sample(jax.random.key(1))
    x_0 = jax.jit(lambda keys, x_T: samplers.sample(keys, sampler, x_T, samplers.times(30, 30)))(keys, x_T)
    assert set(np.unique(x_0)) == {0, 1}
    assert abs(x_0.mean() - 0.85) < 0.03


def test_eta_and_a_rate_out_of_range_are_refused():
    process = binomial.process(schedules.steady(4))
    with pytest.raises(ValueError, match="a binomial process has no DDIM"):
        process.posterior(jnp.zeros(1), jnp.zeros(1), 2, 1, 0.5)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), got 1"):
        binomial.process(schedules.steady(4), 1.0)
