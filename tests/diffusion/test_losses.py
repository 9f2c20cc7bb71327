"""Losses on data whose best predictor is known: the bound then has a known value, and no model beats the entropy."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, forward_variance

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small

ENTROPY = 0.5 * np.log(2 * np.pi * np.e)


def best_x_0_of_two(schedule, variance=0.01):
    """E[x_0 | x_t] for the even mixture of N(-1, variance) and N(1, variance), by Bayes."""

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, x_t.ndim)
        share = jnp.sqrt(alpha_bar) / (alpha_bar * variance + one_minus)
        return variance * share * x_t + (1 - variance * share * jnp.sqrt(alpha_bar)) * jnp.tanh(share * x_t)

    return network


def best_eps_of_two(schedule):
    x_0 = best_x_0_of_two(schedule)

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, x_t.ndim)
        return (x_t - jnp.sqrt(alpha_bar) * x_0(x_t, t, condition)) / jnp.sqrt(one_minus)

    return network


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def seeing(process, given):
    """The process, with this noise in place of any that would be drawn."""

    class Given(Normal):
        def noise(self, key):
            return given

    return process._replace(transition=lambda x_s, s, t: Given(*process.transition(x_s, s, t)))


@cache  # compiled once for all variances of the data and of the kernels
def compiled_bound(num_steps, parameterize, predictor, log_likelihood):
    schedule = schedules.linear_scaled(num_steps, np.float64)

    @jax.jit
    def bound(x_0, noise, data_variance, variances):
        process = seeing(gaussian.process(schedule, log_likelihood), noise)
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
    alpha_bar, one_minus = schedules.linear(1000, dtype=np.float64)
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


def test_prior_term(x64):
    """L_T in bits a dimension for data of these second moments, schedule of 2020; by a float64 recursion."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64), gaussian.density)
    parameterization, network = parameterizations.eps(process), best_eps(process.schedule, 1.0)
    bound = jax.jit(lambda x_0: losses.bound(keys(4), process, parameterization, network, x_0, times=jnp.array([2])))
    bits = bound(np.sqrt([[0], [0.25], [1 / 3], [1]]) * np.ones((1, 3))).prior / 3 / np.log(2)
    np.testing.assert_allclose(bits, [5.874784e-10, 7.278677e-6, 9.704707e-6, 2.911295e-5], rtol=1e-6)


T = 19


def small_problem():
    """A process of T steps, a parameterization and a network."""
    process = gaussian.process(schedules.linear(T, 1e-3, 0.3), gaussian.density)
    return process, parameterizations.eps(process, fixed_large), best_eps(process.schedule, 0.4)


IMAGES = np.tanh(np.random.default_rng(0).normal(size=(8, 2, 2, 1))).astype(np.float32)


@cache
def whole_bound():
    return losses.bound(keys(8), *small_problem(), jnp.asarray(IMAGES))


@jax.jit
def compiled(keys, x_0, times):
    return losses.bound(keys, *small_problem(), x_0, times=times)


def test_all_times_are_the_default_and_jit_changes_nothing():
    for found, default in zip(compiled(keys(8), IMAGES, np.arange(T, 1, -1)), whole_bound(), strict=True):
        np.testing.assert_allclose(found, default, rtol=1e-5)


def test_one_time_estimates_the_chain_without_bias():
    """The mean over every choice of one t is the sum over all t: exactly, as a t always sees the same noise."""
    ones = np.stack([compiled(keys(8), IMAGES, np.array([t])).chain.sum(1) for t in range(2, T + 1)])
    np.testing.assert_allclose(ones.mean(0), whole_bound().chain.sum(1), rtol=1e-5)
    assert np.all(np.ptp(ones, axis=0) > 1)


def test_each_example_can_have_times_of_its_own():
    """Six strata of three times, another permutation of them for each example: their mean is the whole again."""
    times = np.random.default_rng(0).permuted(np.tile(np.arange(2, T + 1), (8, 1)), axis=1).T
    parts = [compiled(keys(8), IMAGES, times[i : i + 3]) for i in range(0, T - 1, 3)]
    np.testing.assert_allclose(np.mean([part.total() for part in parts], 0), whole_bound().total(), rtol=1e-5)
    seen = np.concatenate([part.distortion[:, :-1] for part in parts], axis=1)
    expected = np.take_along_axis(np.asarray(whole_bound().distortion), T - times.T, 1)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.parametrize("rows", [[3, 1, 0, 2, 7, 6, 5, 4], [6, 2, 4]], ids=["permuted", "sliced"])
def test_an_example_keeps_its_bound_in_any_batch(rows):
    """Its noise comes from its own key."""
    found = compiled(keys(8)[np.array(rows)], IMAGES[np.array(rows)], np.arange(T, 1, -1))
    for terms, expected in zip(found, whole_bound(), strict=True):
        np.testing.assert_allclose(terms, expected[np.array(rows)], rtol=1e-5)
    assert len(np.unique(whole_bound().chain)) == whole_bound().chain.size


def test_another_key_is_another_draw_of_the_same_bound():
    other = compiled(jax.random.split(jax.random.key(1), 8), IMAGES, np.arange(T, 1, -1))
    assert np.all(np.abs(other.chain / whole_bound().chain - 1) > 1e-5)
    np.testing.assert_allclose(other.prior, whole_bound().prior, rtol=1e-6)


def test_the_condition_reaches_the_network():
    """A network that repeats its condition, given the answer: x_0 without any error."""
    process = small_problem()[0]
    problem = process, parameterizations.x0(process), lambda x_t, t, condition: condition

    @jax.jit
    def told(key, keys, x_0):
        return losses.simple(key, *problem, x_0, x_0), losses.bound(keys, *problem, x_0, x_0).distortion

    loss, distortion = told(jax.random.key(0), keys(8), IMAGES)
    np.testing.assert_array_equal(loss, np.zeros(8))
    np.testing.assert_array_equal(distortion, np.zeros((8, T)))


def within(values, expected, errors=5):
    """Whether the mean is the expected one, within that many of its standard errors, which is small."""
    error = values.std() / np.sqrt(len(values))
    return error < 0.002 and abs(values.mean() - expected) < errors * error


def test_simple_loss_of_the_best_predictor_of_two_clusters():
    """By numerical integration in float64: what noise two clusters leave unknown, averaged over uniform t."""
    process = gaussian.process(schedules.linear(1000))
    parameterization, network = parameterizations.eps(process), best_eps_of_two(process.schedule)
    side = jax.random.rademacher(jax.random.key(1), (100_000, 4), jnp.float32)
    x_0 = side + 0.1 * jax.random.normal(jax.random.key(2), side.shape)
    loss = jax.jit(lambda key, x_0: losses.simple(key, process, parameterization, network, x_0))
    assert within(np.asarray(loss(jax.random.key(0), x_0), np.float64), 0.1624522)


def test_simple_loss_of_the_best_predictor_of_gaussian_data():
    """Var(noise | x_t) = abar s^2 / (abar s^2 + 1 - abar), averaged over uniform t; any other predictor has more."""
    process = gaussian.process(schedules.linear(1000))
    x_0 = 0.3 + 0.5 * jax.random.normal(jax.random.key(1), (100_000, 4))

    @jax.jit
    def loss(variance, mean):
        network = best_eps(process.schedule, variance, mean)
        return losses.simple(jax.random.key(0), process, parameterizations.eps(process), network, x_0)

    best = np.asarray(loss(0.25, 0.3), np.float64)
    signal = 0.25 * np.asarray(process.schedule.alpha_bar[1:], np.float64)
    assert within(best, np.mean(signal / (signal + process.schedule.one_minus_alpha_bar[1:])))
    for excess in (loss(0.35, 0.3) - best, loss(0.15, 0.3) - best, loss(0.25, 0.4) - best, loss(0.25, 0.2) - best):
        assert excess.mean() > 5 * excess.std() / np.sqrt(len(excess))


def test_simple_loss_draws_a_time_and_noise_for_each_example():
    """Every t from 1 to T alike: a network that states x_0 = t where it is 0 has the loss t^2."""
    process, x_0 = gaussian.process(schedules.linear(3)), jnp.zeros((3000, 1))
    by_time = process, parameterizations.x0(process), lambda x_t, t, condition: t[:, None].astype(jnp.float32)
    by_noise = process, parameterizations.eps(process), lambda x_t, t, condition: jnp.zeros_like(x_t)
    key = jax.random.key
    squares, noises = jax.jit(lambda: (losses.simple(key(0), *by_time, x_0), losses.simple(key(0), *by_noise, x_0)))()
    values, counts = np.unique(squares, return_counts=True)
    assert values.tolist() == [1, 4, 9] and np.all(np.abs(counts - 1000) < 5 * np.sqrt(3000 * 2 / 9))
    assert len(np.unique(noises)) == 3000


@pytest.mark.parametrize("variance", [fixed_small, fixed_large])
def test_single_terms_of_the_bound_add_up_to_it(variance):
    """T times the mean of `variational` is the chain and the decoder of `bound`, in bits."""
    process = gaussian.process(schedules.linear(8, 0.02, 0.4))
    reading = parameterizations.eps(process, variance)
    x_0 = jnp.round(8 * jax.random.uniform(jax.random.key(1), (20_000, 2))) / 4 - 1

    def network(x_t, t, condition):
        return 0.3 * x_t + 0.1 * condition

    condition = jnp.ones((20_000, 1))
    one = jax.jit(lambda key: losses.variational(key, process, reading, network, x_0, condition))(jax.random.key(2))
    whole = jax.jit(lambda: losses.bound(keys(20_000), process, reading, network, x_0, condition))()
    expected = (whole.chain.sum(axis=1) + whole.decoder) / (2 * np.log(2))
    error = np.hypot(8 * one.std(), expected.std()) / np.sqrt(20_000)
    assert abs(8 * one.mean() - expected.mean()) < 3 * error
    assert error < 0.05 * expected.mean()


def test_the_variance_of_data_at_a_point_is_learnt_from_single_terms():
    """There the posterior's own variance is the best (Ho et al. 2020, Section 3.2): descent from afar finds it."""
    schedule = schedules.linear(4, 0.1, 0.4)
    process = gaussian.process(schedule, gaussian.density)
    reading = parameterizations.learned(parameterizations.x0(process))
    x_0 = jnp.full((2000, 1), 0.3)

    def loss(log_variance, key):
        def network(x_t, t, condition):
            return jnp.concatenate([jnp.full_like(x_t, 0.3), log_variance[t - 1][:, None]], axis=1)

        return losses.variational(key, process, reading, network, x_0).mean()

    def descend(log_variance, key):
        gradient = jax.grad(loss)(log_variance, key).at[0].set(0.0)  # at t = 1 the likelihood grows without end
        return log_variance - 2.0 * gradient, None

    learnt, _ = jax.jit(lambda start: jax.lax.scan(descend, start, keys(100)))(jnp.zeros(4))
    best = [float(gaussian.posterior_variance(schedule, t, t - 1, 0)) for t in (2, 3, 4)]
    np.testing.assert_allclose(np.exp(learnt[1:]), best, rtol=0.02)
