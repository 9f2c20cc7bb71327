"""DDIM: a linear map on Gaussian data without noise, ancestral sampling with all of it, and eta in between."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import TIMES, best_eps, keys, problem, start
from known import T as STEPS

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules


def released_times(count):
    """The times of the released code of Song et al. 2021, indices 0, 1000 / S, ... counted from one; 999 is skipped."""
    return np.append(np.arange(0, 1000, 1000 // count)[::-1] + 1, 0).astype(np.int32)


# steps; standard deviation for data N(0, 1) and N(0, 1/4) at eta = 0; by a float64 recursion
DDIM = [
    (10, [0.83169588, 0.37412849]),
    (20, [0.91253171, 0.43373442]),
    (50, [0.96407927, 0.47243911]),
    (100, [0.98185083, 0.48598057]),
    (1000, [0.99812429, 0.49849528]),
]


@pytest.mark.parametrize(("count", "deviations"), DDIM)
def test_ddim_without_noise_is_a_linear_map(count, deviations, x64):
    """x_0 = a x_T on Gaussian data, so a is the deviation of the samples."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    network = best_eps(process.schedule, jnp.array([[1.0, 0.25]]))
    sampler = samplers.ddim(process, parameterizations.eps(process), network)
    x_T = jnp.array([[1.0, 1.0], [-3.0, 2.0]])
    x_0 = samplers.sample(keys(2), sampler, x_T, released_times(count))
    np.testing.assert_allclose(x_0, x_T * np.array([deviations]), rtol=3e-8)


def flow(process, times, variance=0.25):
    """The deviation that DDIM at eta = 0 makes of data N(0, variance)."""
    sampler = samplers.ddim(process, parameterizations.eps(process), best_eps(process.schedule, variance))
    return samplers.sample(keys(1), sampler, jnp.ones((1, 1)), times)[0, 0]


def test_more_steps_come_nearer_to_the_data(x64):
    """The error of the deterministic walk falls with the number of its steps, at first order (Euler's)."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    errors = 0.5 - np.array([flow(process, samplers.times(1000, count)) for count in (25, 100)])
    assert 3 < errors[0] / errors[1] < 5


def test_real_times_approach_the_flow_that_no_integer_times_can(x64):
    """The flow from T to 1 has the deviation sqrt(var(x_1) / var(x_T)) (methods: probability flow of a Gaussian).

    Ten times the steps, ten times nearer, also with more times than the schedule has steps.
    """
    process = gaussian.process(schedules.linear(20, 0.01, 0.4, np.float64))
    alpha_bar, one_minus = process.schedule.at(jnp.array([1, 20]), 1)
    x_1, x_T = np.sqrt(0.25 * alpha_bar + one_minus)
    found = [flow(process, np.linspace(20, 1, count + 1)) for count in (40, 400, 4000)]
    errors = np.abs(np.array(found) - x_1 / x_T)
    assert errors[0] < 0.05 and np.all((errors[:-1] / errors[1:] > 8) & (errors[:-1] / errors[1:] < 12))


@jax.jit
def ddim(keys, x_T, times, eta):
    return samplers.sample(keys, samplers.ddim(*problem(), eta=eta), x_T, times)


@jax.jit
def ancestral(keys, x_T, times):
    _, parameterization, network = problem()
    return samplers.sample(keys, samplers.ancestral(samplers.reverse(parameterization, network)), x_T, times)


def test_ddim_with_all_its_noise_is_ancestral_sampling():
    """Song et al. 2021, Section 4.1: sample for sample, as both use the same keys alike."""
    found = ddim(keys(8), start(), TIMES, 1.0)
    np.testing.assert_allclose(found, ancestral(keys(8), start(), TIMES), rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(found - ddim(keys(8), start(), TIMES, 0.9)) > 1e-4)


def test_eta_scales_the_noise_of_a_step():
    """Song et al. 2021, Eq. 16: at eta = 1/2 half the deviation of eta = 1, around the mean of the other bridge."""
    process, parameterization, network = problem()
    x_0 = parameterization.x_0(network(start(), STEPS, None), start(), STEPS)
    full, half = (process.posterior(start(), x_0, STEPS, 10, eta) for eta in (1.0, 0.5))
    walked_full, walked_half = (ddim(keys(8), start(), np.array([STEPS, 10], np.int32), eta) for eta in (1.0, 0.5))
    np.testing.assert_allclose(walked_half - half.mean, (walked_full - full.mean) / 2, rtol=1e-4, atol=1e-6)


def test_keys_are_used_only_where_there_is_noise():
    """None without eta, and none in the step to the data, which takes the mode."""
    for times, eta in ((TIMES, 0.0), (np.array([5, 0], np.int32), 1.0)):
        one, other = (ddim(keys(8, seed), start(), times, eta) for seed in (0, 1))
        np.testing.assert_array_equal(one, other)
    one, other = (ddim(keys(8, seed), start(), TIMES, 0.1) for seed in (0, 1))
    assert np.all(np.asarray(one != other))


def test_eta_and_times_are_no_reason_to_compile_again():
    traced = []

    @jax.jit
    def sample(keys, x_T, times, eta):
        traced.append(eta)
        return samplers.sample(keys, samplers.ddim(*problem(), eta=eta), x_T, times)

    spaced = [samplers.times(STEPS, 6, spacing) for spacing in (samplers.even, samplers.quadratic)]
    results = [sample(keys(8), start(), times, eta) for times in spaced for eta in (0.0, 0.25, 0.5, 1.0)]
    assert len(traced) == 1
    assert len({np.asarray(result).tobytes() for result in results}) == 8


def test_a_batch_of_etas_is_the_separate_calls():
    etas = jnp.array([0.0, 0.3, 1.0])
    together = jax.jit(jax.vmap(ddim.__wrapped__, (None, None, None, 0)))(keys(8), start(), TIMES, etas)
    for found, eta in zip(together, etas, strict=True):
        np.testing.assert_allclose(found, ddim(keys(8), start(), TIMES, eta), rtol=1e-5, atol=1e-6)


def test_a_column_of_etas_is_one_vmap():
    """The column S = 10 of Song et al. 2021, Table 1: one program for all eta, equal to the single runs."""
    process, parameterization, network = problem()
    compiled = []

    @jax.jit
    def drawn(eta, x_T):
        compiled.append(eta)
        return samplers.sample(keys(8), samplers.ddim(process, parameterization, network, eta=eta), x_T, TIMES)

    etas = jnp.array([0.0, 0.2, 0.5, 1.0])
    single = jnp.stack([drawn(eta, start()) for eta in etas])
    column = jax.jit(jax.vmap(drawn, (0, None)))(etas, start())
    np.testing.assert_allclose(column, single, atol=1e-5)
    assert len(compiled) <= 2 and np.abs(column[0] - column[3]).max() > 0.1  # one by one, and all at once
