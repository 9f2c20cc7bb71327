"""The bound and the likelihood of 2015, against sums over all paths of a few bits."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import Bernoulli

BITS = np.array([0.0, 1.0])
CUBE = np.array(list(product(BITS, repeat=3)))


def log_matrix(dist):
    """[from, to] over the cube: the log probabilities of all states, by a distribution for each state."""
    spread = Bernoulli(dist.one[:, None], dist.zero[:, None])
    return np.asarray(spread.log_prob(jnp.asarray(CUBE)[None])).sum(axis=-1)


def bound_by_paths(process, kernel, data):
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


def entropies(process, x_0):
    """H_q(X^T | X^0) - H_q(X^1 | X^0) - H_p(X^T), the last three terms of Eq. 14."""
    last, first = process.marginal(x_0, process.schedule.num_steps), process.marginal(x_0, 1)
    return last.entropy() - first.entropy() - process.prior(x_0.shape).entropy()


SKEWED, ACTIVE = np.arange(1.0, 9), np.prod(np.where(np.asarray(CUBE) > 0.5, 0.2, 0.8), axis=1)


@pytest.mark.parametrize(
    "rate, data, holds", [(0.5, np.ones(8), True), (0.5, SKEWED, True), (0.2, SKEWED, False), (0.2, ACTIVE, True)]
)
def test_the_bound_is_the_sum_over_all_paths(x64, rate, data, holds):
    """Eq. 12 by brute force, our parts of it, and Eq. 14, which holds only where its condition does."""
    process = binomial.process(schedules.from_betas([0.1, 0.4, 0.7], np.float64), rate)
    parameterization = parameterizations.fixed_last(process, parameterizations.logits(process))
    kernel = lambda x_t, t, s: parameterization.kernel(jnp.sin(3 * x_t + t), x_t, t, s)  # noqa: E731  some network
    data, states = data / data.sum(), jnp.asarray(CUBE)
    before, after = jnp.repeat(states, 8, axis=0), jnp.tile(states, (8, 1))  # all pairs (x_0, x_t)
    chain = 0.0
    for t in (2, 3):
        divergence = process.posterior(after, before, t, t - 1).kl(kernel(after, t, t - 1))
        reached = np.exp(log_matrix(process.marginal(states, t)))
        chain += (data[:, None] * reached * np.asarray(divergence).sum(axis=1).reshape(8, 8)).sum()
    prior = np.asarray(process.marginal(states, 3).kl(process.prior(states.shape))).sum(axis=1) @ data
    fixed = np.asarray(losses.fixed_decoder(process, states)).sum(axis=1) @ data
    by_paths = bound_by_paths(process, kernel, data)
    np.testing.assert_allclose(-(chain + prior + fixed), by_paths, rtol=1e-10)
    by_entropies = np.asarray(entropies(process, states)).sum(axis=1) @ data - chain
    assert np.isclose(by_entropies, by_paths, rtol=1e-10) == holds  # where the mean activity is the rate, or that 0.5


def test_importance_sampling_nears_the_likelihood_of_the_chain(x64):
    """log p(x_0) of a chain of two steps over one bit, by counting; one path alone gives the bound, below it."""
    process = binomial.process(schedules.from_betas([0.3, 0.5], np.float64), 0.4)
    parameterization = parameterizations.fixed_last(process, parameterizations.logits(process))
    kernel = lambda x_t, t, s: parameterization.kernel(4 - 8 * x_t, x_t, t, s)  # noqa: E731  a bad one
    back = [np.asarray(kernel(jnp.asarray(BITS), t, t - 1).one) for t in (1, 2)]
    chance = 0.4
    for one in reversed(back):
        chance = chance * one[1] + (1 - chance) * one[0]
    x_0 = jnp.ones((400, 1))
    many = losses.log_likelihood(jax.random.key(0), process, kernel, x_0, 4000)
    one = losses.log_likelihood(jax.random.key(1), process, kernel, x_0, 1)
    np.testing.assert_allclose(many.mean(), np.log(chance), atol=5e-3)
    assert one.mean() < np.log(chance) - 0.05


def test_importance_sampling_gives_pixels_a_probability(x64):
    """The probabilities of all values of a pixel, each from its own chains, sum to one; densities would not."""
    levels = 4
    process = gaussian.process(schedules.from_betas([0.2, 0.4, 0.6], np.float64), gaussian.discretized(levels))
    parameterization = parameterizations.x0(process, parameterizations.fixed_large)
    kernel = samplers.reverse(parameterization, lambda x_t, t, condition: 0.5 * x_t)
    x_0 = jnp.linspace(-1, 1, levels)[:, None]
    found = losses.log_likelihood(jax.random.key(0), process, kernel, x_0, 40_000)
    np.testing.assert_allclose(np.exp(found).sum(), 1, atol=0.02)


def entropy(*probabilities):
    """Of a joint distribution, in nats."""
    table = np.concatenate([np.ravel(each) for each in probabilities])
    return -(table * np.log(table)).sum()


def test_the_entropy_of_a_reverse_step_lies_between_its_bounds(x64):
    """Eq. 24, H_q(X^{t-1} | X^t), counted over the cube; its bounds by samples of the data, within their errors."""
    process = binomial.process(schedules.from_betas([0.1, 0.4, 0.7], np.float64), 0.5)
    data, states, count = SKEWED / SKEWED.sum(), jnp.asarray(CUBE), 4000
    x_0 = jnp.asarray(CUBE[np.random.default_rng(0).choice(8, count, p=data)])
    for t in (2, 3):
        before = data @ np.exp(log_matrix(process.marginal(states, t - 1)))
        joint = before[:, None] * np.exp(log_matrix(process.transition(states, t - 1, t)))
        exact = entropy(joint) - entropy(joint.sum(axis=0))
        bounds = losses.entropy_bounds(jax.random.key(t), process, x_0, t)
        lower, upper = (np.asarray(jnp.broadcast_to(each, x_0.shape)).sum(axis=1) for each in bounds)
        assert lower.mean() + 4 * lower.std() / np.sqrt(count) < exact < upper.mean() - 4 * upper.std() / np.sqrt(count)
        np.testing.assert_allclose(upper, entropy(joint) - entropy(before), rtol=1e-10)  # at this rate the same for all
