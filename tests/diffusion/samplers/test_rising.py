"""Walks that also rise: the forward transition, without the network, and right moments down, up and down again."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, keys

from ddpm_jax.diffusion import binomial, gaussian, parameterizations, samplers, schedules

T, COUNT = 60, 100_000
UP_AND_DOWN = [60, 50, 40, 30, 20, 30, 45, 35, 20, 10, 25, 10, 5]
"""Down, up and down again; no time twice in a row."""


def reverse_variance(variance):
    """Var(x_s | x_t) for data of this variance: the posterior's, and what is not known of x_0 through its weight."""

    def rule(schedule, t, s, ndim):
        alpha_bar, one_minus = schedule.at(t, ndim)
        left = variance * one_minus / (variance * alpha_bar + one_minus)
        weight = jnp.sqrt(schedule.at(s, ndim)[0]) * schedule.between(s, t, ndim)[1] / one_minus
        return gaussian.posterior_variance(schedule, t, s, ndim) + weight**2 * left

    return rule


@pytest.mark.parametrize("times", [UP_AND_DOWN, np.array(UP_AND_DOWN) - 0.25], ids=["integer", "real"])
def test_down_up_and_down_again_the_moments_are_those_of_q(times):
    """For data N(0.5, 1/4) and the exact reverse steps, within five standard errors at each time."""
    process = gaussian.process(schedules.linear(T, 2e-3, 0.3))
    network = best_eps(process.schedule, jnp.full((1, 1), 0.25), mean=0.5)
    parameterization = parameterizations.eps(process, reverse_variance(0.25))
    sampler = samplers.rising(process, samplers.ddpm(process, parameterization, network))
    x_0 = 0.5 + 0.5 * jax.random.normal(jax.random.key(1), (COUNT, 1))
    times = np.asarray(times)

    @jax.jit
    def walk(keys, x_0, times):
        x_T = process.marginal(x_0, times[0]).sample(jax.random.key(2))
        return samplers.sample_path(keys, sampler, x_T, times, len(times))[1]

    path = np.asarray(walk(keys(COUNT), x_0, times), np.float64)[..., 0]
    alpha_bar, one_minus = (np.asarray(each) for each in process.schedule.at(times, 1))
    mean, variance = 0.5 * np.sqrt(alpha_bar), 0.25 * alpha_bar + one_minus
    assert np.all(np.abs(path.mean(1) - mean) < 5 * np.sqrt(variance / COUNT))
    assert np.all(np.abs(path.var(1) / variance - 1) < 5 * np.sqrt(2 / COUNT))


def test_the_network_is_not_evaluated_in_a_rising_step():
    process, evaluated = gaussian.process(schedules.linear(T, 2e-3, 0.3)), []

    def network(x_t, t, condition):
        jax.debug.callback(lambda t: evaluated.append(int(t)), t)
        return 0.1 * x_t

    sampler = samplers.rising(process, samplers.ddim(process, parameterizations.eps(process), network))
    x = jax.jit(lambda keys, x: samplers.sample(keys, sampler, x, np.array(UP_AND_DOWN)))(keys(3), jnp.ones((3, 2)))
    jax.effects_barrier()
    falling = [t for t, s in pairwise(UP_AND_DOWN) if s < t]
    assert sorted(evaluated) == sorted(falling) and np.isfinite(x).all()


def test_a_walk_that_only_falls_is_unchanged():
    process = gaussian.process(schedules.linear(T, 2e-3, 0.3))
    sampler = samplers.ddim(process, parameterizations.eps(process), lambda x_t, t, condition: 0.1 * x_t, eta=0.5)
    x_T, times = jax.random.normal(jax.random.key(1), (8, 2)), samplers.times(T, 6)
    plain, both = (
        jax.jit(lambda keys, x_T, kind=kind: samplers.sample(keys, kind, x_T, times))(keys(8), x_T)
        for kind in (sampler, samplers.rising(process, sampler))
    )
    np.testing.assert_allclose(both, plain, rtol=1e-6)


def test_bits_rise_by_their_forward_transition():
    """From all ones at t = 0: the share of ones is that of q(x_t | x_0)."""
    process = binomial.process(schedules.steady(10), 0.2)
    logits = parameterizations.logits(process)
    sampler = samplers.rising(process, samplers.ddpm(process, logits, lambda x_t, t, condition: x_t))
    walk = jax.jit(lambda keys, x: samplers.sample(keys, sampler, x, np.array([0, 3, 6])))
    x = np.asarray(walk(keys(20_000), jnp.ones((20_000, 1))))
    share = float(process.marginal(jnp.ones(1), 6).one[0])
    assert abs(x.mean() - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
