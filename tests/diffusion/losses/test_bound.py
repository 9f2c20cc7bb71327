"""The variational bound of known best predictors: its value is known, and no model beats the entropy."""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, best_x_0_of_two, forward_variance, keys

from ddpm_jax.diffusion import gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small

ENTROPY = 0.5 * np.log(2 * np.pi * np.e)


def with_noise(process, given):
    """The process, with this noise in place of any that would be drawn."""

    class Given(Normal):
        def noise(self, key):
            return given

    def transition(*arguments):
        return Given(*process.family.transition(*arguments))

    return dataclasses.replace(process, family=process.family._replace(transition=transition))


@cache  # compiled once for all variances of the data and of the kernels
def compiled_bound(num_steps, parameterize, predictor, log_likelihood):
    schedule = schedules.linear_scaled(num_steps, np.float64)

    @jax.jit
    def bound(x_0, noise, data_variance, variances):
        process = with_noise(gaussian.process(schedule, log_likelihood), noise)
        parameterization = parameterize(process, lambda _, t, s, ndim: jnp.reshape(variances[t - 1], (1,) * ndim))
        return losses.bound(keys(len(x_0)), process, parameterization, predictor(schedule, data_variance), x_0)

    return schedule, bound


def expected_bound(problem, data, data_variance, variance, noise_nodes):
    """The bound's expectation, term by term, by Gauss-Hermite quadrature over the noise: no sampling error.

    One example for each node of the data and of the noise; it sees the same noise at each t, on which no expectation
    depends. `data` are nodes and weights, `variance` is that of the kernels: the rule, or its value at each t.
    """
    schedule, bound = compiled_bound(*problem)
    t = np.arange(1, schedule.num_steps + 1)
    variances = jax.jit(variance, static_argnums=3)(schedule, t, t - 1, 1) if callable(variance) else variance
    noise = np.polynomial.hermite_e.hermegauss(noise_nodes)
    examples = (each.reshape(-1, 1) for each in np.meshgrid(data[0], noise[0], indexing="ij"))
    share = np.outer(data[1], noise[1]).ravel()
    terms = bound(*examples, data_variance, variances)
    return jax.tree.map(lambda term: np.tensordot(share / share.sum(), np.asarray(term), 1), terms)


def total(bound):
    return bound.prior + bound.chain.sum() + bound.decoder


# variance of the data, variance of the kernel, sum of the chain, decoder, bound: nats a dimension, with the schedule of
# Ho et al. 2020 and the best eps; by a float64 recursion over the Gaussian moments
GAUSSIAN_ROWS = [
    (1.0, forward_variance, 4.6051500, -3.1862317, 1.418938533),
    (1.0, fixed_large, 4.6051500, -3.0725291, 1.532641060),
    (1.0, fixed_small, 5.0700423, -3.0725291, 1.997533378),
    (0.25, forward_variance, 3.9132602, -3.1863816, 0.726883608),
    (0.25, fixed_large, 3.9132602, -3.0728041, 0.840461104),
]


def gaussian_bound(data_variance, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # exact: the terms are quadratic in x_0 and the noise
    problem = 1000, parameterizations.eps, best_eps, gaussian.density
    return expected_bound(problem, (np.sqrt(data_variance) * nodes, weights), data_variance, variance, 3)


@pytest.mark.parametrize(("data_variance", "variance", "chain", "decoder", "whole"), GAUSSIAN_ROWS)
def test_bound_of_the_best_predictor_of_gaussian_data(data_variance, variance, chain, decoder, whole, x64):
    bound = gaussian_bound(data_variance, variance)
    np.testing.assert_allclose([bound.chain.sum(), bound.decoder], [chain, decoder], atol=6e-8)
    np.testing.assert_allclose(total(bound), whole, atol=1e-9)
    assert total(bound) > ENTROPY + np.log(data_variance) / 2 - 1e-9


def test_bound_is_the_entropy_when_the_model_is_perfect(x64):
    """Data N(0, 1) and the kernels' variances beta_t: reverse and forward chain are one, and nothing is lost."""
    bound = gaussian_bound(1.0, forward_variance)
    np.testing.assert_allclose(total(bound), ENTROPY, rtol=1e-12)
    terms = dict(zip(range(1000, 1, -1), bound.chain, strict=True))
    by_recursion = [0.394019382, 0.0795885390, 0.00912585334, 4.11836154e-7]
    np.testing.assert_allclose([terms[t] for t in (2, 10, 100, 1000)], by_recursion, rtol=2e-9)


@pytest.mark.parametrize("data_variance", [1.0, 0.25])
def test_distortion_is_the_conditional_variance_of_the_data(data_variance, x64):
    """Var(x_0 | x_t): the precisions of the data and of the observation add. At t = T first, at t = 1 last."""
    schedule = schedules.linear(1000, dtype=np.float64)
    alpha_bar, one_minus = schedule.alpha_bar, schedule.one_minus_alpha_bar
    left = 1 / (1 / data_variance + alpha_bar / np.maximum(one_minus, 1e-300))
    distortion = gaussian_bound(data_variance, fixed_small).distortion
    np.testing.assert_allclose(distortion, left[:0:-1], rtol=1e-10)


def test_sampled_bound_meets_the_entropy_in_float32():
    """The same with noise that is drawn, within five standard errors."""
    schedule = schedules.linear(1000)
    process = gaussian.process(schedule, gaussian.density)
    parameterization = parameterizations.eps(process, forward_variance)

    @jax.jit
    def sampled(key):
        x_0 = jax.random.normal(key, (512, 32))
        return losses.bound(keys(512), process, parameterization, best_eps(schedule, 1.0), x_0).total()

    per_dimension = np.asarray(sampled(jax.random.key(1)), np.float64) / 32
    error = per_dimension.std() / np.sqrt(512)
    assert error < 0.01
    assert abs(per_dimension.mean() - ENTROPY) < 5 * error


MIXTURE_ENTROPY = -0.190499379  # of the even mixture of N(-1, 0.01) and N(1, 0.01), nats; by numerical integration
# T, variance of the kernel, bound; with betas 1e-4 .. 0.02 times 1000 / T; by numerical integration in float64
MIXTURE_ROWS = [
    (1000, forward_variance, -0.1704052),
    (1000, fixed_large, -0.0607895),
    (1000, fixed_small, 0.3155085),
    (100, forward_variance, -0.0036029),
    (100, fixed_large, 0.0040403),
    (100, fixed_small, 0.4783262),
]


def mixture_bound(num_steps, variance):
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    problem = num_steps, parameterizations.x0, best_x_0_of_two, gaussian.density
    # the cluster at 1 stands for both, which are mirror images; many nodes, for noise that leads from one to the other
    return expected_bound(problem, (1 + 0.1 * nodes, weights), 0.01, variance, 200)


@pytest.mark.parametrize(("num_steps", "variance", "whole"), MIXTURE_ROWS)
def test_bound_of_the_best_predictor_of_two_clusters(num_steps, variance, whole, x64):
    found = total(mixture_bound(num_steps, variance))
    np.testing.assert_allclose(found, whole, atol=2e-7)
    assert found > MIXTURE_ENTROPY


@pytest.mark.parametrize(("num_steps", "whole"), [(100, -0.1555002), (1000, -0.1871753)])
def test_the_best_variance_is_that_of_the_reverse_step(num_steps, whole, x64):
    """Var(x_s | x_t) by the law of total variance: no other kernel variance has a lower bound."""
    schedule = schedules.linear_scaled(num_steps, np.float64)
    t = np.arange(1, num_steps + 1)
    given_x_0 = jax.jit(gaussian.posterior)(schedule, np.zeros(num_steps), np.ones(num_steps), t, t - 1)
    unknown = mixture_bound(num_steps, fixed_small).distortion[::-1]
    best = np.asarray(given_x_0.variance) + np.asarray(given_x_0.mean) ** 2 * unknown
    found = total(mixture_bound(num_steps, best))
    np.testing.assert_allclose(found, whole, atol=2e-7)
    assert MIXTURE_ENTROPY < found < min(total(mixture_bound(num_steps, f * best)) for f in (0.99, 1.01))


@pytest.mark.parametrize("variance", [forward_variance, fixed_large])
def test_more_steps_close_the_gap(variance, x64):
    few, many = (total(mixture_bound(num_steps, variance)) - MIXTURE_ENTROPY for num_steps in (100, 1000))
    assert 0 < many < few


def test_bound_of_a_bit_is_at_least_log_2(x64):
    """Data -1 or 1 at even chances, and the decoder over these two levels; again more steps close the gap."""

    def gap(num_steps):
        problem = num_steps, parameterizations.x0, best_x_0_of_two, gaussian.discretized(2)
        bound = expected_bound(problem, (np.ones(1), np.ones(1)), 0.0, fixed_small, 200)
        assert 0 <= bound.decoder < 1e-6  # one step away from the data the bit is still certain
        return total(bound) - np.log(2)

    few, many = gap(100), gap(1000)
    assert 0 < many < few / 3 < 0.1


@jax.jit
def analytic_bound(schedule, errors, data_variance, x_0, noise, visits):
    process = with_noise(gaussian.process(schedule, gaussian.density), noise)
    best = parameterizations.with_variance(parameterizations.eps(process), parameterizations.analytic(errors))
    return losses.bound(keys(9), process, best, best_eps(schedule, data_variance), x_0, visits=visits).total()


@pytest.mark.parametrize("data_variance", [1.0, 0.25])
@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_with_the_analytic_variance_the_bound_of_gaussian_data_is_the_entropy_for_any_steps(count, data_variance, x64):
    """Bao et al. 2022: the reverse conditionals are Gaussian, and their variance is the analytic one."""
    schedule = schedules.linear(1000, dtype=np.float64)
    one_minus = np.maximum(schedule.one_minus_alpha_bar, 1e-300)
    errors = 1 / (1 / data_variance + schedule.alpha_bar / one_minus)
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    x_0, noise = (
        jnp.asarray(each.reshape(-1, 1)) for each in np.meshgrid(np.sqrt(data_variance) * nodes, nodes, indexing="ij")
    )
    share = np.outer(weights, weights).ravel() / weights.sum() ** 2
    bound = analytic_bound(schedule, errors, data_variance, x_0, noise, jnp.asarray(samplers.times(1000, count)))
    np.testing.assert_allclose(share @ np.asarray(bound), ENTROPY + np.log(data_variance) / 2, atol=2e-9)


def test_the_bound_of_all_steps_is_the_bound():
    process = gaussian.process(schedules.linear(12, 0.01, 0.3))
    x_0 = jnp.tanh(jax.random.normal(jax.random.key(0), (3, 4)))
    arguments = keys(3), process, parameterizations.eps(process), best_eps(process.schedule, 0.4), x_0
    whole, visited = losses.bound(*arguments), losses.bound(*arguments, visits=samplers.times(12, 12))
    jax.tree.map(np.testing.assert_array_equal, whole, visited)


@cache
def bound_and_terms(kind):
    """(process, variance of the kernels, the bound as a function of the visits, the terms at every t)."""
    process = gaussian.process(schedules.linear(40, 0.002, 0.2))
    x_0 = jnp.round(8 * jnp.tanh(jax.random.normal(jax.random.key(0), (3, 4)))) / 8
    errors = np.append(0.0, np.linspace(0.01, 0.4, 40)).astype(np.float32)
    variance = parameterizations.analytic(errors) if kind == "analytic" else getattr(parameterizations, kind)
    chosen = parameterizations.with_variance(parameterizations.eps(process), variance)
    arguments = keys(3), process, chosen, best_eps(process.schedule, 0.4, mean=0.1), x_0
    terms = jax.tree.map(np.asarray, jax.jit(lambda: losses.terms(*arguments, errors=errors))())
    return process, variance, jax.jit(lambda visits: losses.bound(*arguments, visits=visits)), terms


@pytest.mark.parametrize("name", ["even", "quadratic", "linspace", "leading"])
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large", "analytic"])
def test_the_terms_at_every_t_give_the_bound_of_any_steps(name, kind):
    """For each example: the divergence of a long step is known from the error of x_0 at its t."""
    process, variance, bound_of, terms = bound_and_terms(kind)
    times = samplers.SPACINGS[name](process.schedule, 5)
    bound = bound_of(times)
    constant, slope = samplers.step_terms(process.schedule, variance, times[:-2], times[1:-1])
    np.testing.assert_allclose(4 * (constant + slope * terms.errors[:, times[:-2] - 1]), bound.chain, rtol=2e-4)
    decoder = terms.analytic_decoder if kind == "analytic" else terms.decoder
    np.testing.assert_allclose(4 * decoder[:, times[-2] - 1], bound.decoder, rtol=1e-5)
    if name != "leading":  # which does not start at T
        np.testing.assert_allclose(4 * terms.prior, bound.prior, rtol=1e-5)


def test_the_bound_at_real_times_is_above_the_entropy():
    """Data N(0, 1), whose bound no choice of times can bring below it; T = 1000, 10 steps even in log-SNR."""
    schedule = schedules.linear(1000)
    process = gaussian.process(schedule, gaussian.density)
    best = parameterizations.eps(process, fixed_large)
    x_0 = jax.random.normal(jax.random.key(1), (512, 32))
    visits = samplers.logsnr(schedule, 10)
    whole = jax.jit(lambda: losses.bound(keys(512), process, best, best_eps(schedule, 1.0), x_0, visits=visits).total())
    assert ENTROPY - 0.02 < np.mean(whole()) / 32 < ENTROPY + 0.15


def test_prior_term(x64):
    """L_T in bits a dimension for data of these second moments, schedule of 2020; by a float64 recursion."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64), gaussian.density)
    parameterization, network = parameterizations.eps(process), best_eps(process.schedule, 1.0)
    bound = jax.jit(lambda x_0: losses.bound(keys(4), process, parameterization, network, x_0, times=jnp.array([2])))
    bits = bound(np.sqrt([[0], [0.25], [1 / 3], [1]]) * np.ones((1, 3))).prior / 3 / np.log(2)
    np.testing.assert_allclose(bits, [5.874784e-10, 7.278677e-6, 9.704707e-6, 2.911295e-5], rtol=1e-6)
