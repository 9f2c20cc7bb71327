"""Bits: counted by hand, bit by bit and path by path."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, losses, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import Bernoulli

BITS = np.array([0.0, 1.0])
RATES = [0.5, 0.2]


def schedule():
    return schedules.from_betas([0.1, 0.3, 0.05, 0.6], np.float64)


def matrix(process, s, t):
    """[from, to]: the transition matrix of one bit."""
    one = np.asarray(process.transition(jnp.asarray(BITS), s, t).one)
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
    for x_0, x_t in product((0, 1), (0, 1)):
        joint = to_s[x_0] * matrix(process, s, t)[:, x_t]
        got = process.posterior(jnp.float64(x_t), jnp.float64(x_0), t, s)
        np.testing.assert_allclose([got.zero, got.one], joint / joint.sum(), rtol=1e-12, atol=1e-15)


def test_the_posterior_of_a_belief_is_that_of_the_chain(x64):
    """With E[x_0 | x_t] in the place of x_0: q(x_s | x_t) of data that are one with probability 0.7."""
    process, chance, s, t = binomial.process(schedule(), 0.2), 0.7, 1, 3
    data = np.array([1 - chance, chance])
    for x_t in (0, 1):
        belief = data * matrix(process, 0, t)[:, x_t]
        joint = (data @ matrix(process, 0, s)) * matrix(process, s, t)[:, x_t]
        got = process.posterior(jnp.float64(x_t), jnp.float64(belief[1] / belief.sum()), t, s)
        np.testing.assert_allclose(got.one, joint[1] / joint.sum(), rtol=1e-12)


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
    got = process.posterior(jnp.float32(x_t), jnp.float32(x_0), t, t - 1)
    np.testing.assert_allclose(got.one, expected, rtol=2e-4)
    np.testing.assert_allclose(got.one + got.zero, 1, rtol=1e-6)


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


def test_tilting_multiplies(x64):
    dist, r = Bernoulli(jnp.array(0.3), jnp.array(0.7)), np.array([0.2, 0.9])
    tilted = dist.tilt(jnp.log(r[1] / r[0]))
    np.testing.assert_allclose(tilted.one, 0.3 * r[1] / (0.3 * r[1] + 0.7 * r[0]), rtol=1e-12)


CUBE = np.array(list(product(BITS, repeat=3)))


def log_matrix(dist):
    """[from, to] over the cube: the log probabilities of all states, by a distribution for each state."""
    spread = Bernoulli(dist.one[:, None], dist.zero[:, None])
    return np.asarray(spread.log_prob(jnp.asarray(CUBE)[None])).sum(axis=-1)


def paper_s_bound_by_paths(process, kernel, data):
    """K by its definition (2015: Eq. 12) for data with these probabilities over the cube: the sum over all paths."""
    times = range(1, process.schedule.num_steps + 1)
    states = jnp.asarray(CUBE)
    forward = [log_matrix(process.transition(states, t - 1, t)) for t in times]
    back = [log_matrix(kernel(states, t, t - 1)).T for t in times]
    prior = np.asarray(process.prior((8, 3)).log_prob(states)).sum(axis=1)
    total = 0.0
    for path in product(range(8), repeat=len(times) + 1):
        steps = list(zip(forward, back, path, path[1:], strict=False))
        chance = data[path[0]] * np.exp(sum(there[x, y] for there, _, x, y in steps))
        total += chance * (prior[path[-1]] + sum(again[x, y] - there[x, y] for there, again, x, y in steps))
    return total


SKEWED, ACTIVE = np.arange(1.0, 9), np.prod(np.where(np.asarray(CUBE) > 0.5, 0.2, 0.8), axis=1)


@pytest.mark.parametrize(
    "rate, data, holds", [(0.5, np.ones(8), True), (0.5, SKEWED, True), (0.2, SKEWED, False), (0.2, ACTIVE, True)]
)
def test_the_paper_s_bound_is_the_sum_over_all_paths(x64, rate, data, holds):
    """Eq. 12 by brute force, our parts of it, and Eq. 14, which holds only where its condition does."""
    process = binomial.process(schedules.from_betas([0.1, 0.4, 0.7], np.float64), rate)
    reading = parameterizations.fixed_last(parameterizations.logits(process))
    kernel = lambda x_t, t, s: reading.kernel(jnp.sin(3 * x_t + t), x_t, t, s)  # noqa: E731  some network
    data, states = data / data.sum(), jnp.asarray(CUBE)
    before, after = jnp.repeat(states, 8, axis=0), jnp.tile(states, (8, 1))  # all pairs (x_0, x_t)
    chain = 0.0
    for t in (2, 3):
        divergence = process.posterior(after, before, t, t - 1).kl(kernel(after, t, t - 1))
        reached = np.exp(log_matrix(process.marginal(states, t)))
        chain += (data[:, None] * reached * np.asarray(divergence).sum(axis=1).reshape(8, 8)).sum()
    prior = np.asarray(process.marginal(states, 3).kl(process.prior(states.shape))).sum(axis=1) @ data
    fixed = np.asarray(losses.fixed_decoder(process, states)).sum(axis=1) @ data
    by_paths = paper_s_bound_by_paths(process, kernel, data)
    np.testing.assert_allclose(-(chain + prior + fixed), by_paths, rtol=1e-10)
    by_entropies = np.asarray(losses.entropies(process, states)).sum(axis=1) @ data - chain
    assert np.isclose(by_entropies, by_paths, rtol=1e-10) == holds  # where the mean activity is the rate, or that 0.5


def test_importance_sampling_nears_the_likelihood_of_the_chain(x64):
    """log p(x_0) of a chain of two steps over one bit, by counting; one path alone gives the bound, below it."""
    process = binomial.process(schedules.from_betas([0.3, 0.5], np.float64), 0.4)
    reading = parameterizations.fixed_last(parameterizations.logits(process))
    kernel = lambda x_t, t, s: reading.kernel(4 - 8 * x_t, x_t, t, s)  # noqa: E731  a bad one
    back = [np.asarray(kernel(jnp.asarray(BITS), t, t - 1).one) for t in (1, 2)]
    chance = 0.4
    for one in reversed(back):
        chance = chance * one[1] + (1 - chance) * one[0]
    x_0 = jnp.ones((400, 1))
    many = losses.log_likelihood(jax.random.key(0), process, kernel, x_0, 4000)
    one = losses.log_likelihood(jax.random.key(1), process, kernel, x_0, 1)
    np.testing.assert_allclose(many.mean(), np.log(chance), atol=5e-3)
    assert one.mean() < np.log(chance) - 0.05


def test_sampling_a_perfect_model_gives_the_data(x64):
    """Bits that are one with probability 0.85, read by their exact log odds: the samples have their mean."""
    process = binomial.process(schedules.steady(30, np.float64), 0.5)

    def network(x_t, t, condition):
        chance = process.marginal(jnp.ones_like(x_t), t).log_prob(x_t) - process.marginal(
            jnp.zeros_like(x_t), t
        ).log_prob(x_t)
        return jnp.log(0.85 / 0.15) + chance

    reading = parameterizations.fixed_last(parameterizations.logits(process))
    keys = jax.random.split(jax.random.key(0), 4000)
    sampler = samplers.ddpm(process, reading, network)
    x_T = process.prior((4000, 1)).sample(jax.random.key(1))
    x_0 = samplers.sample(keys, sampler, x_T, samplers.times(30, 30))
    assert set(np.unique(x_0)) == {0, 1}
    assert abs(x_0.mean() - 0.85) < 0.03


def test_what_bits_cannot_be_asked():
    process = binomial.process(schedules.steady(4))
    with pytest.raises(ValueError, match="bits have no DDIM"):
        process.posterior(jnp.zeros(1), jnp.zeros(1), 2, 1, 0.5)
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), got 1"):
        binomial.process(schedules.steady(4), 1.0)
