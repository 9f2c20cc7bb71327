"""Ancestral sampling of data whose best predictor is known: the moments of its samples, step for step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, forward_variance, keys, moments

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small

DATA_VARIANCES = [1.0, 0.25]


def ancestral_moments(variance, times):
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    network = best_eps(process.schedule, jnp.array(DATA_VARIANCES))
    kernel = samplers.reverse(parameterizations.eps(process, variance), network)
    return [np.asarray(moment) for moment in moments(kernel, jnp.asarray(times))]


# variance of the kernels; for data N(0, 1) and N(0, 1/4), best eps, schedule of Ho et al. 2020: variance of the sample
# without the noise of the last step and with it; by a float64 recursion
ANCESTRAL = [
    (forward_variance, [0.999900000, 0.250752075], [1.000000000, 0.250852075]),
    (fixed_large, [0.999900000, 0.250752075], [0.999954532, 0.250806607]),
    (fixed_small, [0.991067376, 0.24612521], [0.991121908, 0.24617974]),
]


@pytest.mark.parametrize(("variance", "noiseless", "noisy"), ANCESTRAL)
def test_variance_of_ancestral_samples(variance, noiseless, noisy, x64):
    mean, found_noiseless, found_noisy = ancestral_moments(variance, samplers.times(1000, 1000))
    np.testing.assert_allclose(found_noiseless, noiseless, atol=6e-9)
    np.testing.assert_allclose(found_noisy, noisy, atol=6e-9)
    np.testing.assert_allclose(mean, np.zeros(2), atol=1e-12)


# steps; for data N(0, 1) and N(0, 1/4): variance with the posterior's own at each stride; by a float64 recursion
STRIDED = [
    (10, [0.54820734, 0.11106430]),
    (20, [0.71072592, 0.15324442]),
    (50, [0.85743391, 0.19724511]),
    (100, [0.92159916, 0.21926356]),
    (1000, [0.99106738, 0.24612521]),
]


@pytest.mark.parametrize(("count", "variances"), STRIDED)
def test_variance_of_strided_ancestral_samples(count, variances, x64):
    """At the times of the released code of Song et al. 2021, where it is DDIM with eta = 1."""
    times = np.append(np.arange(0, 1000, 1000 // count)[::-1] + 1, 0).astype(np.int32)
    _, noiseless, _ = ancestral_moments(fixed_small, times)
    np.testing.assert_allclose(noiseless, variances, atol=6e-9)


REAL = np.append(np.geomspace(60, 1, 40), 0).astype(np.float32)  # only its ends are integers


@pytest.mark.parametrize("times", [samplers.times(60, 60), REAL], ids=["integer", "real"])
def test_drawn_samples_have_the_moments_of_their_kernels(times):
    """Ancestral sampling in float32, T = 60: mean and variance within five standard errors, the last step noiseless."""
    process = gaussian.process(schedules.linear(60, 2e-3, 0.3))
    network = best_eps(process.schedule, jnp.array([DATA_VARIANCES]), mean=0.5)
    count = 200_000
    x_T = jax.random.normal(jax.random.key(1), (count, 2))
    sampler = samplers.ddpm(process, parameterizations.eps(process), network)
    x_0 = np.asarray(jax.jit(samplers.sample, static_argnums=1)(keys(count), sampler, x_T, times), np.float64)
    kernel = samplers.reverse(
        parameterizations.eps(process), best_eps(process.schedule, jnp.array(DATA_VARIANCES), mean=0.5)
    )
    mean, variance, _ = (np.asarray(moment) for moment in moments(kernel, jnp.asarray(times)))
    assert np.all(np.abs(x_0.mean(0) - mean) < 5 * np.sqrt(variance / count))
    assert np.all(np.abs(x_0.var(0) / variance - 1) < 5 * np.sqrt(2 / count))


def test_samples_at_real_times_are_those_of_the_data(x64):
    """Data N(0.5, 1/4): with the exact variance of each step any times lead there; half a step too late would not."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    schedule, data = process.schedule, 0.25

    def exact(schedule, t, s, ndim):
        """Var(x_s | x_t): the posterior's variance, and what is not known of x_0 through the weight of x_0."""
        alpha_bar, one_minus = schedule.at(t, ndim)
        left = data * one_minus / (data * alpha_bar + one_minus)
        beta = schedule.between(s, t, ndim)[1]
        weight = jnp.sqrt(schedule.at(s, ndim)[0]) * beta / one_minus
        return gaussian.posterior_variance(schedule, t, s, ndim) + weight**2 * left

    network = best_eps(schedule, jnp.array([data, data]), mean=0.5)
    kernel = samplers.reverse(parameterizations.eps(process, exact), network)
    times = jnp.asarray(np.append(np.geomspace(1000, 1, 23), 0))
    mean, _, variance = moments(kernel, times)
    np.testing.assert_allclose(mean, [0.5, 0.5], rtol=7e-3)  # x_T is not quite N(0, 1): alpha_bar_T is 4e-5
    np.testing.assert_allclose(variance, [data, data], rtol=1e-5)
    assert abs(moments(partial(shifted, kernel), times)[2][0] / data - 1) > 1e-3


def shifted(kernel, x_t, t, s):
    return kernel(x_t, jnp.maximum(t - 0.5, 1), s)
