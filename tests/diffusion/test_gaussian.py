"""Gaussian diffusion: Bayes, Chapman-Kolmogorov, entropies, and a likelihood of bytes that adds up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, schedules
from ddpm_jax.diffusion.distributions import Normal

STEPS = [(1, 2), (9, 10), (1, 1000), (99, 100), (250, 500), (499, 500), (600, 750), (999, 1000)]

# t, variance, weight of x_0 and weight of x_t of q(x_{t-1} | x_t, x_0), Ho et al. 2020, Eqs. 6-7 with their schedule;
# by a float64 recursion over numpy arrays
POSTERIOR = [
    (1, 0, 1, 0),
    (2, 5.4531876613e-05, 0.54529149951, 0.454708498991),
    (10, 2.38182027823e-4, 0.147273717431, 0.852726226102),
    (100, 2.03459625949e-3, 0.0190763453173, 0.980896021316),
    (250, 5.03172086792e-3, 0.00771665718227, 0.991880384505),
    (500, 0.0100313554146, 0.00307007111426, 0.99410667021),
    (750, 0.015019250026, 8.78966774274e-4, 0.992410698013),
    (1000, 0.0199999835266, 1.28351487172e-4, 0.989948678268),
]


@pytest.fixture
def schedule(x64):
    return schedules.linear(1000, dtype=np.float64)


def weights(schedule, t, s, eta=1.0):
    """The weights of x_0 and of x_t in the posterior mean, which is linear in both."""
    zero, one = jnp.zeros(1), jnp.ones(1)
    of_x_0 = gaussian.posterior(schedule, zero, one, t, s, eta).mode()
    of_x_t = gaussian.posterior(schedule, one, zero, t, s, eta).mode()
    return of_x_0[0], of_x_t[0]


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_bayes(s, t, schedule):
    """q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0) = q(x_s | x_t, x_0) at every point."""
    x_0, x_s, x_t = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)))
    forward = gaussian.transition(schedule, x_s, s, t).log_prob(x_t)
    before = gaussian.transition(schedule, x_0, 0, s).log_prob(x_s)
    after = gaussian.transition(schedule, x_0, 0, t).log_prob(x_t)
    backward = gaussian.posterior(schedule, x_t, x_0, t, s).log_prob(x_s)
    np.testing.assert_allclose(forward + before - after, backward, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_chapman_kolmogorov(s, t, schedule):
    """A step to s, then one from s to t, is the step to t: the mean of the means, the sum of the variances."""
    x_0 = jnp.array([-0.7, 0.2, 1.0])
    first, whole = (gaussian.transition(schedule, x_0, 0, time) for time in (s, t))
    mean, slope = jax.jvp(lambda x: gaussian.transition(schedule, x, s, t).mode(), (first.mean,), (jnp.ones(3),))
    added = gaussian.transition(schedule, x_0, s, t).variance
    np.testing.assert_allclose(mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(slope[0] ** 2 * first.variance + added, whole.variance, rtol=1e-12)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_the_prior_is_stationary(s, t, schedule):
    """Standard normal in, standard normal out."""
    prior = gaussian.prior((1,))
    step = gaussian.transition(schedule, jnp.ones(1), s, t)
    np.testing.assert_allclose(step.mean**2 * prior.variance + step.variance, prior.variance, rtol=1e-14)
    assert prior.mean == 0


@pytest.mark.parametrize(("t", "variance", "of_x_0", "of_x_t"), POSTERIOR)
def test_posterior_of_one_step(t, variance, of_x_0, of_x_t, schedule):
    np.testing.assert_allclose(weights(schedule, t, t - 1), [of_x_0, of_x_t], rtol=5e-11)
    np.testing.assert_allclose(gaussian.posterior_variance(schedule, t, t - 1, 0), variance, rtol=5e-11)


@pytest.mark.parametrize(("t", "variance", "of_x_0", "of_x_t"), POSTERIOR)
def test_posterior_of_one_step_in_float32(t, variance, of_x_0, of_x_t):
    schedule = schedules.linear(1000)
    np.testing.assert_allclose(weights(schedule, t, t - 1), [of_x_0, of_x_t], rtol=3e-5)
    np.testing.assert_allclose(gaussian.posterior_variance(schedule, t, t - 1, 0), variance, rtol=3e-5)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize(("s", "t"), [(0, 1), (0, 1000), *STEPS])
def test_every_bridge_keeps_the_marginals(s, t, eta, schedule):
    """Song et al. 2021, Lemma 1: x_t of its marginal, then the bridge, leaves x_s of its marginal."""
    x_0 = jnp.array([-0.7, 0.2, 1.0])
    at_t, at_s = (gaussian.transition(schedule, x_0, 0, time) for time in (t, s))
    bridge = gaussian.posterior(schedule, at_t.mode(), x_0, t, s, eta)
    _, slope = weights(schedule, t, s, eta)
    np.testing.assert_allclose(bridge.mean, at_s.mean, rtol=1e-12)
    np.testing.assert_allclose(slope**2 * at_t.variance + bridge.variance, at_s.variance, rtol=1e-12)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_eta_goes_from_no_noise_to_that_of_the_chain(s, t, schedule):
    """Song et al. 2021, Eq. 16: the standard deviation grows in proportion to eta."""
    variance = [gaussian.posterior(schedule, jnp.ones(1), jnp.ones(1), t, s, eta).variance[0] for eta in (0, 0.5, 1)]
    assert variance[0] == 0
    np.testing.assert_allclose(variance[1:], gaussian.posterior_variance(schedule, t, s, 0) * np.array([0.25, 1]))


def test_each_example_has_its_own_time():
    schedule, t, s = schedules.linear(100), jnp.array([1, 40, 100]), jnp.array([0, 7, 99])
    x_t, x_0 = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    together = gaussian.posterior(schedule, x_t, x_0, t, s)
    for i in range(3):
        alone = gaussian.posterior(schedule, x_t[i], x_0[i], t[i], s[i])
        np.testing.assert_allclose(together.mean[i], alone.mean, rtol=1e-6)
        np.testing.assert_allclose(together.variance[i], alone.variance, rtol=1e-6)


def test_q_sample_is_a_draw_of_the_marginal(schedule):
    """x_t has the moments of t single steps of the chain, here followed one by one."""
    mean, variance = 1.0, 0.0
    for beta in np.linspace(1e-4, 0.02, 1000)[:300]:
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    noise = jnp.array([-1.0, 0.0, 1.0])
    x_t = gaussian.q_sample(schedule, jnp.ones(3), 300, noise)
    np.testing.assert_allclose(x_t, mean + np.sqrt(variance) * noise, rtol=1e-12)


# t, and the bounds of Sohl-Dickstein et al. 2015, Eq. 24, on H(x_{t-1} | x_t) around its value for data N(0, 1/4),
# nats, with the schedule of 2020; by a float64 recursion
ENTROPIES = [
    (2, -3.489424034, -3.095584428, -3.095404653),
    (10, -2.752299144, -2.673126656, -2.672710605),
    (100, -1.679790406, -1.672803525, -1.670664552),
]


def entropy(variance):
    return np.log(2 * np.pi * np.e * variance) / 2


def reverse_variance(schedule, t, data_variance):
    """Var(x_{t-1} | x_t) for data N(0, data_variance), by conditioning the joint Gaussian of the two."""
    one = jnp.ones(1)
    before, step = gaussian.transition(schedule, one, 0, t - 1), gaussian.transition(schedule, one, t - 1, t)
    prior = before.mean**2 * data_variance + before.variance
    return float((prior - (step.mean * prior) ** 2 / (step.mean**2 * prior + step.variance))[0])


@pytest.mark.parametrize(("t", "lower", "exact", "upper"), ENTROPIES)
def test_the_two_variances_bound_the_entropy_of_a_step(t, lower, exact, upper, schedule):
    beta = gaussian.transition(schedule, jnp.ones(1), t - 1, t).variance[0]
    small = gaussian.posterior_variance(schedule, t, t - 1, 0)
    found = [entropy(v) for v in (small, reverse_variance(schedule, t, 0.25), beta)]
    np.testing.assert_allclose(found, [lower, exact, upper], atol=1e-9)
    assert found == sorted(found)


@pytest.mark.parametrize("t", [2, 10, 100, 1000])
def test_the_upper_bound_is_reached_by_data_of_unit_variance(t, schedule):
    beta = gaussian.transition(schedule, jnp.ones(1), t - 1, t).variance[0]
    np.testing.assert_allclose(reverse_variance(schedule, t, 1.0), beta, rtol=1e-10)


def log_masses(levels, means, deviations, interval=gaussian.erf_interval):
    """log p of every level, [len(means), levels]."""

    @jax.jit
    def rows(mean, deviation):
        x = jnp.broadcast_to(jnp.linspace(-1, 1, levels), (len(means), levels))
        return gaussian.discretized(levels, interval)(Normal(mean[:, None], deviation[:, None] ** 2), x)

    return rows(jnp.array(means), jnp.array(deviations))


# mean, deviation, byte, log mass with the exact Phi, and with the tanh of Ho et al. 2020's released code; float64
BYTES = [
    (0.0, 0.01, 127, -1.260289304, -1.260645122),
    (0.0, 0.5, 0, -3.764598116, -3.766574382),
    (0.0, 0.5, 127, -5.073948726, -5.073948929),
    (0.9, 0.3, 255, -0.982470395, -0.982443521),
    (0.9, 0.3, 127, -9.102153165, -9.142360268),
    (0.3, 1.0, 255, -1.413912838, -1.413592080),
]


def test_log_mass_of_a_byte(x64):
    means, deviations, byte, exact, by_tanh = zip(*BYTES, strict=True)
    rows = np.arange(len(BYTES))
    np.testing.assert_allclose(log_masses(256, means, deviations)[rows, byte], exact, atol=1e-9)
    found = log_masses(256, means, deviations, gaussian.tanh_interval)[rows, byte]
    np.testing.assert_allclose(found, by_tanh, atol=1e-9)


def test_the_released_code_sees_no_mass_below_1e_12(x64):
    """Where the exact likelihood still tells 90 from 100 deviations."""
    far = [-0.1, 0.0]
    np.testing.assert_allclose(log_masses(256, far, [0.01] * 2, gaussian.tanh_interval)[:, 0], np.log(1e-12))
    exact = log_masses(256, far, [0.01] * 2)[:, 0]
    assert -5100 < exact[1] < exact[0] - 900


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_levels_share_all_the_mass(levels, x64):
    means, deviations = [0.0, 0.3, -0.99, 1.2, -5.0], [0.01, 1.0, 1e-4, 0.3, 2.0]
    np.testing.assert_allclose(jnp.exp(log_masses(levels, means, deviations)).sum(1), 1, rtol=1e-12)


def test_neighbouring_intervals_merge(x64):
    """Two intervals that touch add up, also far out in a tail, where no mass is left but its logarithm."""
    edges = jnp.array([-1e4, -1e3, -40.0, -5.0, 0.0, 1.0, 40.0, 41.0, 1e3])
    first, second = gaussian.erf_interval(edges[:-2], edges[1:-1]), gaussian.erf_interval(edges[1:-1], edges[2:])
    np.testing.assert_allclose(jnp.logaddexp(first, second), gaussian.erf_interval(edges[:-2], edges[2:]), rtol=1e-13)


def test_the_mass_of_an_interval_is_that_of_its_mirror_image(x64):
    lower, upper = jnp.array([-3.0, -0.5, 0.0, 2.0, 30.0, -jnp.inf]), jnp.array([-2.0, 1.5, 0.1, 9.0, 31.0, -40.0])
    mirrored = gaussian.erf_interval(-upper, -lower)
    np.testing.assert_allclose(gaussian.erf_interval(lower, upper), mirrored, rtol=1e-14)


def test_tanh_is_within_2e_4_of_the_normal_distribution_function(x64):
    """Its greatest error is 1.789326e-4, at 2.592 (found on a float64 grid)."""
    x = jnp.linspace(-5, 5, 10001)
    below = jnp.full(x.shape, -jnp.inf)
    error = jnp.abs(jnp.exp(gaussian.tanh_interval(below, x)) - jnp.exp(gaussian.erf_interval(below, x)))
    np.testing.assert_allclose(error.max(), 1.789326e-4, rtol=1e-5)
    np.testing.assert_allclose(jnp.abs(x[error.argmax()]), 2.592, atol=1e-3)


@pytest.mark.parametrize("levels", [2, 256])
def test_likelihood_and_its_slopes_stay_finite_in_float32(levels):
    """However far outside the mean lies, and however small the variance."""
    means, variances = (axis.ravel() for axis in np.meshgrid([-5, -1, 0, 0.999, 5], [1e-12, 1e-4, 1, 1e4]))
    x = jnp.broadcast_to(jnp.linspace(-1, 1, levels), (len(means), levels))
    shape = (1, levels)
    at = Normal(jnp.tile(jnp.float32(means)[:, None], shape), jnp.tile(jnp.float32(variances)[:, None], shape))
    value, slopes = jax.jit(jax.value_and_grad(lambda dist: gaussian.discretized(levels)(dist, x).sum()))(at)
    assert jnp.isfinite(value) and jnp.isfinite(slopes.mean).all() and jnp.isfinite(slopes.variance).all()
    # from outside the range the likelihood of an inner level always calls the mean in
    inner, outside = slice(1, -1), jnp.abs(at.mean[:, 0]) == 5
    assert jnp.all((slopes.mean * at.mean < 0)[outside, inner])


def test_float32_likelihood_is_the_float64_one(request):
    rows = [-5.0, -5.0, 0.3, 0.3, 5.0, 5.0], [0.01, 0.3] * 3
    single = log_masses(256, *rows)
    request.getfixturevalue("x64")
    np.testing.assert_allclose(single, log_masses(256, *rows), rtol=1e-4, atol=1e-7)


def test_many_levels_are_a_density(x64):
    """log mass - log width of a level -> log density, with an error of the width squared."""
    gaps = []
    for levels in (257, 513, 1025):
        density = gaussian.density(Normal(jnp.full(levels, 0.2), jnp.full(levels, 0.09)), jnp.linspace(-1, 1, levels))
        gap = log_masses(levels, [0.2], [0.3])[0] - np.log(2 / (levels - 1)) - density
        gaps.append(jnp.abs(gap[1:-1]).max())
    assert gaps[-1] < 3e-5
    np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 4, rtol=0.02)


def test_a_process_measures_bytes_unless_told_otherwise():
    schedule, dist, x_0 = schedules.linear(10), Normal(jnp.zeros(5), jnp.ones(1)), jnp.linspace(-1, 1, 5)
    by_default, continuous = gaussian.process(schedule), gaussian.process(schedule, gaussian.density)
    np.testing.assert_allclose(by_default.log_likelihood(dist, x_0), gaussian.discretized(256)(dist, x_0))
    np.testing.assert_allclose(continuous.log_likelihood(dist, x_0), dist.log_prob(x_0))
    # an inner byte has about a 128th of the density
    inner = slice(1, -1)
    gap = continuous.log_likelihood(dist, x_0) - by_default.log_likelihood(dist, x_0)
    np.testing.assert_allclose(gap[inner], np.log(127.5), atol=1e-4)
