"""Losses on data whose best predictor is known: the bound then has a known value, and no model beats the entropy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small

ENTROPY = 0.5 * np.log(2 * np.pi * np.e)


def forward_variance(schedule, t, s, ndim):
    """beta_t at every t, the first included: exact for data of unit variance."""
    return schedule.between(s, t, ndim)[1]


def best_eps(schedule, variance, mean=0.0):
    """E[noise | x_t] for data N(mean, variance), by conditioning a Gaussian."""

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, x_t.ndim)
        return jnp.sqrt(one_minus) * (x_t - jnp.sqrt(alpha_bar) * mean) / (alpha_bar * variance + one_minus)

    return network


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


def two_clusters(nodes=16):
    """Nodes and weights of the even mixture of N(-1, 0.01) and N(1, 0.01)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return np.concatenate([-1 + 0.1 * nodes, 1 + 0.1 * nodes]), np.tile(weights, 2)


def expected_bound(schedule, parameterize, network, x_0, weights, noise_nodes=3):
    """The bound's expectation, term by term, by Gauss-Hermite quadrature over the noise: no sampling error.

    The example in row i of x_0 and column j of the nodes is made to see node j at each t.
    """
    noise, noise_weights = np.polynomial.hermite_e.hermegauss(noise_nodes)
    examples, seen = (jnp.asarray(each.reshape(-1, 1)) for each in np.meshgrid(x_0, noise, indexing="ij"))
    process = gaussian.process(schedule, gaussian.density)
    seeing = process._replace(transition=lambda x_s, s, t: _Seeing(*process.transition(x_s, s, t)).these(seen))
    bound = losses.bound(keys(len(examples)), seeing, parameterize(process), network, examples)
    share = np.outer(weights, noise_weights).ravel()
    return jax.tree.map(lambda term: np.tensordot(share / share.sum(), np.asarray(term), 1), bound)


class _Seeing(Normal):
    """A Normal whose noise is not drawn but given."""

    def these(self, noise):
        given = type("Given", (Normal,), {"noise": lambda self, key: noise})
        return given(*self)


def gaussian_data(deviation=1.0):
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # exact: the terms are quadratic in x_0 and the noise
    return deviation * nodes, weights


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


def gaussian_bound(data_variance, variance, num_steps=1000):
    schedule = schedules.linear(num_steps, dtype=np.float64)
    return expected_bound(
        schedule,
        lambda process: parameterizations.eps(process, variance),
        best_eps(schedule, data_variance),
        *gaussian_data(np.sqrt(data_variance)),
    )


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
    x_0 = jax.random.normal(jax.random.key(1), (512, 64))
    parameterization = parameterizations.eps(process, forward_variance)
    bound = losses.bound(keys(512), process, parameterization, best_eps(schedule, 1.0), x_0)
    per_dimension = np.asarray(bound.total(), np.float64) / 64
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


def mixture_schedule(num_steps, dtype=np.float64):
    return schedules.linear(num_steps, 0.1 / num_steps, 20 / num_steps, dtype)


def mixture_bound(num_steps, variance):
    schedule = mixture_schedule(num_steps)
    parameterize = lambda process: parameterizations.x0(process, variance)  # noqa: E731
    return expected_bound(schedule, parameterize, best_x_0_of_two(schedule), *two_clusters(), noise_nodes=64)


@pytest.mark.parametrize(("num_steps", "variance", "whole"), MIXTURE_ROWS)
def test_bound_of_the_best_predictor_of_two_clusters(num_steps, variance, whole, x64):
    found = total(mixture_bound(num_steps, variance))
    np.testing.assert_allclose(found, whole, atol=2e-7)
    assert found > MIXTURE_ENTROPY


@pytest.mark.parametrize(("num_steps", "whole"), [(100, -0.1555002), (1000, -0.1871753)])
def test_the_best_variance_is_that_of_the_reverse_step(num_steps, whole, x64):
    """Var(x_s | x_t) by the law of total variance: no other kernel variance has a lower bound."""
    distortion = mixture_bound(num_steps, fixed_small).distortion[::-1]

    def best(schedule, t, s, ndim):
        zero, one = jnp.zeros((1,) * ndim), jnp.ones((1,) * ndim)
        posterior = gaussian.posterior(schedule, zero, one, t, s)
        return posterior.variance + posterior.mean**2 * jnp.asarray(distortion)[t - 1]

    found = total(mixture_bound(num_steps, best))
    np.testing.assert_allclose(found, whole, atol=2e-7)
    assert MIXTURE_ENTROPY < found < total(mixture_bound(num_steps, forward_variance))


def test_more_steps_close_the_gap(x64):
    gaps = [total(mixture_bound(num_steps, forward_variance)) - MIXTURE_ENTROPY for num_steps in (50, 200, 800)]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 0


def test_bound_of_bits_is_at_least_one_bit(x64):
    """Data -1 or 1 at even chances, the decoder over two levels: log 2, and a gap that more steps close."""

    def gap(num_steps):
        schedule = mixture_schedule(num_steps)
        process = gaussian.process(schedule, gaussian.discretized(2))
        x_0 = jnp.tile(jnp.array([[-1.0], [1.0]]), (128, 1))
        parameterization = parameterizations.x0(process, forward_variance)
        bound = losses.bound(keys(256), process, parameterization, best_x_0_of_two(schedule, 0.0), x_0)
        assert bound.decoder.max() < 1e-6  # after one step the bit is still certain
        return np.mean(bound.total()) - np.log(2), np.std(bound.total()) / np.sqrt(256)

    (coarse, coarse_error), (fine, fine_error) = gap(50), gap(800)
    assert fine > -4 * fine_error and coarse - fine > 4 * (coarse_error + fine_error)


@pytest.mark.parametrize(
    ("second_moment", "bits"), [(0, 5.874784e-10), (0.25, 7.278677e-6), (1 / 3, 9.704707e-6), (1, 2.911295e-5)]
)
def test_prior_term(second_moment, bits, x64):
    """L_T in bits a dimension, with the schedule of 2020; by a float64 recursion."""
    schedule = schedules.linear(1000, dtype=np.float64)
    process = gaussian.process(schedule)
    x_0 = jnp.full((2, 3, 1), np.sqrt(second_moment))
    one_term = jnp.array([2])
    bound = losses.bound(keys(2), process, parameterizations.eps(process), best_eps(schedule, 1.0), x_0, times=one_term)
    np.testing.assert_allclose(bound.prior / 3 / np.log(2), [bits] * 2, rtol=1e-6)


def small_problem(num_steps=20):
    """A process, a parameterization and a network of that process, and eight images."""
    schedule = schedules.linear(num_steps, 1e-3, 0.3)
    process = gaussian.process(schedule)
    x_0 = jnp.tanh(jax.random.normal(jax.random.key(1), (8, 2, 2, 1)))
    return process, parameterizations.eps(process, fixed_large), best_eps(schedule, 0.4), x_0


def bound_at(times):
    process, parameterization, network, x_0 = small_problem()
    return losses.bound(keys(8), process, parameterization, network, x_0, times=times)


def test_all_times_are_the_default():
    for asked, default in zip(bound_at(jnp.arange(20, 1, -1)), bound_at(None), strict=True):
        np.testing.assert_array_equal(asked, default)


def test_one_time_estimates_the_chain_without_bias():
    """The mean over every choice of one t is the sum over all t: exactly, as a t always sees the same noise."""
    whole = bound_at(None).chain.sum(1)
    ones = np.stack([bound_at(jnp.array([t])).chain.sum(1) for t in range(2, 21)])
    np.testing.assert_allclose(ones.mean(0), whole, rtol=1e-5)
    assert np.ptp(ones) > 1


def test_shuffled_strata_estimate_the_chain_without_bias():
    """The mean over the parts of a partition of the times is the whole."""
    shuffled = np.random.default_rng(0).permutation(np.arange(2, 20)).reshape(6, 3)
    parts = [np.asarray(bound_at(jnp.asarray(part)).chain) for part in shuffled]
    np.testing.assert_allclose(np.stack(parts).sum((0, 2)) / 19, np.stack(parts).mean(0).sum(1) * 6 / 19, rtol=1e-5)
    without_last = bound_at(None).chain[:, 1:].sum(1)
    np.testing.assert_allclose(np.concatenate(parts, 1).sum(1) * 3 / 19, without_last, rtol=1e-5)


def test_each_example_can_have_times_of_its_own():
    times = jnp.stack([jnp.arange(2, 10), jnp.arange(19, 11, -1)])
    own = bound_at(times)
    for row in range(2):
        for i in (0, 5):
            alone = bound_at(times[:, i])
            np.testing.assert_allclose(own.chain[i, row], alone.chain[i, row], rtol=1e-5)
            np.testing.assert_allclose(own.distortion[i, row], alone.distortion[i, row], rtol=1e-5)


def test_an_example_keeps_its_bound_in_any_batch():
    """Its noise comes from its own key: permuting the batch permutes the terms, a slice has the terms of the slice."""
    process, parameterization, network, x_0 = small_problem()
    whole = losses.bound(keys(8), process, parameterization, network, x_0)
    for rows in (np.array([3, 1, 0, 2, 7, 6, 5, 4]), np.array([6, 2, 4])):
        part = losses.bound(keys(8)[rows], process, parameterization, network, x_0[rows])
        for found, expected in zip(part, whole, strict=True):
            np.testing.assert_allclose(found, expected[rows], rtol=1e-5)
    assert len(np.unique(whole.chain)) == whole.chain.size


def test_another_key_is_another_draw_of_the_same_bound():
    process, parameterization, network, x_0 = small_problem()
    first, other = (
        losses.bound(jax.random.split(jax.random.key(seed), 8), process, parameterization, network, x_0)
        for seed in (0, 1)
    )
    assert np.all(np.asarray(first.chain) != np.asarray(other.chain))
    np.testing.assert_array_equal(first.prior, other.prior)


def test_bound_is_the_same_under_jit():
    process, parameterization, network, x_0 = small_problem()
    compiled = jax.jit(lambda keys, x_0: losses.bound(keys, process, parameterization, network, x_0))(keys(8), x_0)
    for found, expected in zip(compiled, bound_at(None), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def condition_is_the_output(x_t, t, condition):
    return condition


def test_the_condition_reaches_the_network():
    """A network that repeats its condition, given the answer: x_0 without any error."""
    process, _, _, x_0 = small_problem()
    parameterization = parameterizations.x0(process)
    loss = losses.simple(jax.random.key(0), process, parameterization, condition_is_the_output, x_0, x_0)
    bound = losses.bound(keys(8), process, parameterization, condition_is_the_output, x_0, x_0)
    np.testing.assert_array_equal(loss, np.zeros(8))
    np.testing.assert_array_equal(bound.distortion, np.zeros((8, 20)))


def simple_loss(schedule, network, x_0):
    """L_simple and its standard error."""
    process = gaussian.process(schedule)
    parameterization = parameterizations.eps(process)
    loss = jax.jit(lambda key, x_0: losses.simple(key, process, parameterization, network, x_0))
    values = np.asarray(loss(jax.random.key(0), x_0), np.float64)
    assert values.shape == x_0.shape[:1]
    return values.mean(), values.std() / np.sqrt(len(values))


@pytest.mark.parametrize(("num_steps", "expected"), [(1000, 0.1624522), (100, 0.1590222)])
def test_simple_loss_of_the_best_predictor_of_two_clusters(num_steps, expected):
    """By numerical integration in float64: what noise two clusters leave unknown, averaged over uniform t."""
    schedule = mixture_schedule(num_steps, np.float32)
    side = jax.random.rademacher(jax.random.key(1), (100_000, 4), jnp.float32)
    x_0 = side + 0.1 * jax.random.normal(jax.random.key(2), side.shape)
    found, error = simple_loss(schedule, best_eps_of_two(schedule), x_0)
    assert error < 0.002
    assert abs(found - expected) < 5 * error


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (0.3, 0.25)])
def test_simple_loss_of_the_best_predictor_of_gaussian_data(mean, variance):
    """Var(noise | x_t) = abar s^2 / (abar s^2 + 1 - abar), averaged over uniform t; any other predictor has more."""
    schedule = schedules.linear(1000)
    x_0 = mean + np.sqrt(np.float32(variance)) * jax.random.normal(jax.random.key(1), (100_000, 4))
    found, error = simple_loss(schedule, best_eps(schedule, variance, mean), x_0)
    signal = np.asarray(schedule.alpha_bar[1:] * variance, np.float64)
    assert error < 0.002
    assert abs(found - np.mean(signal / (signal + schedule.one_minus_alpha_bar[1:]))) < 5 * error
    worse, worse_error = simple_loss(schedule, best_eps(schedule, 2 * variance, mean), x_0)
    assert worse > found + 5 * (error + worse_error)


def test_simple_loss_draws_each_example_apart():
    """Equal examples, different t and noise; and every t is drawn, from 1 to T."""
    process = gaussian.process(schedules.linear(3))
    seen = []
    network = lambda x_t, t, condition: seen.append(t) or jnp.zeros_like(x_t)  # noqa: E731
    loss = losses.simple(jax.random.key(0), process, parameterizations.eps(process), network, jnp.ones((3000, 1)))
    times, counts = np.unique(seen[0], return_counts=True)
    assert times.tolist() == [1, 2, 3] and np.all(np.abs(counts - 1000) < 5 * np.sqrt(3000 * 2 / 9))
    assert len(np.unique(loss)) == 3000
