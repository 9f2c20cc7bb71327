"""Gaussian diffusion: Bayes, Chapman-Kolmogorov, entropies, and a likelihood of bytes that adds up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, schedules
from ddpm_jax.diffusion.distributions import Normal

# steps from s to t: neighbours, strides, and all the way
S, T = np.array([[1, 2], [9, 10], [1, 1000], [99, 100], [250, 500], [499, 500], [600, 750], [999, 1000]]).T

# t, variance, weight of x_0 and weight of x_t of q(x_{t-1} | x_t, x_0), Ho et al. 2020, Eqs. 6-7 with their schedule;
# by a float64 recursion over numpy arrays
POSTERIOR = np.array(
    [
        (1, 0, 1, 0),
        (2, 5.4531876613e-05, 0.54529149951, 0.454708498991),
        (10, 2.38182027823e-4, 0.147273717431, 0.852726226102),
        (100, 2.03459625949e-3, 0.0190763453173, 0.980896021316),
        (250, 5.03172086792e-3, 0.00771665718227, 0.991880384505),
        (500, 0.0100313554146, 0.00307007111426, 0.99410667021),
        (750, 0.015019250026, 8.78966774274e-4, 0.992410698013),
        (1000, 0.0199999835266, 1.28351487172e-4, 0.989948678268),
    ]
).T


# compiled, as they are used
posterior, transition = jax.jit(gaussian.posterior), jax.jit(gaussian.transition)
posterior_variance = jax.jit(gaussian.posterior_variance, static_argnums=3)


@pytest.fixture
def schedule(x64):
    return schedules.linear(1000, dtype=np.float64)


def weights(schedule, t, s, eta=1.0):
    """The weights of x_0 and of x_t in the posterior mean, which is linear in both, and its variance."""
    zero, one = jnp.zeros(len(t)), jnp.ones(len(t))
    of_x_0 = posterior(schedule, zero, one, t, s, eta)
    of_x_t = posterior(schedule, one, zero, t, s, eta)
    return of_x_0.mode(), of_x_t.mode(), of_x_0.variance


def points(count):
    """[steps, 50] standard normal numbers, `count` times."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, len(S), 50)))


def test_bayes(schedule):
    """q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0) = q(x_s | x_t, x_0) at every point."""
    x_0, x_s, x_t = points(3)
    forward = transition(schedule, x_s, S, T).log_prob(x_t)
    before = transition(schedule, x_0, 0, S).log_prob(x_s)
    after = transition(schedule, x_0, 0, T).log_prob(x_t)
    backward = posterior(schedule, x_t, x_0, T, S).log_prob(x_s)
    np.testing.assert_allclose(forward + before - after, backward, rtol=1e-9, atol=1e-9)


def test_chapman_kolmogorov(schedule):
    """A step to s, then one from s to t, is the step to t: the mean of the means, the sum of the variances."""
    x_0 = points(1)[0]
    first, whole = (transition(schedule, x_0, 0, time) for time in (S, T))
    onward = transition(schedule, first.mean, S, T)
    slope = transition(schedule, jnp.ones((len(S), 1)), S, T).mean
    np.testing.assert_allclose(onward.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(slope**2 * first.variance + onward.variance, whole.variance, rtol=1e-12)


def test_the_prior_is_stationary(schedule):
    """Standard normal in, standard normal out."""
    prior = gaussian.prior((len(S),))
    step = transition(schedule, jnp.ones(len(S)), S, T)
    np.testing.assert_allclose(step.mean**2 * prior.variance + step.variance, np.ones(len(S)), rtol=1e-14)
    np.testing.assert_array_equal(prior.mean, np.zeros(len(S)))


def test_posterior_of_one_step(schedule):
    t, variance, of_x_0, of_x_t = POSTERIOR
    found = weights(schedule, t.astype(int), t.astype(int) - 1)
    np.testing.assert_allclose(found, [of_x_0, of_x_t, variance], rtol=5e-11)


def test_posterior_of_one_step_in_float32():
    t, variance, of_x_0, of_x_t = POSTERIOR
    found = weights(schedules.linear(1000), t.astype(int), t.astype(int) - 1)
    np.testing.assert_allclose(found, [of_x_0, of_x_t, variance], rtol=2e-5)


def test_posterior_variance_is_that_of_the_posterior(schedule):
    alone = posterior_variance(schedule, T, S, 2)
    np.testing.assert_allclose(alone, posterior(schedule, *points(2), T, S).variance, rtol=1e-14)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.7, 1.0])
def test_every_bridge_keeps_the_marginals(eta, schedule):
    """Song et al. 2021, Lemma 1: x_t of its marginal, then the bridge, leaves x_s of its marginal."""
    s, t = np.append(S, [0, 0]), np.append(T, [1, 1000])
    x_0 = jnp.linspace(-1, 1, len(s))
    at_t, at_s = (transition(schedule, x_0, 0, time) for time in (t, s))
    bridge = posterior(schedule, at_t.mode(), x_0, t, s, eta)
    _, slope, _ = weights(schedule, t, s, eta)
    np.testing.assert_allclose(bridge.mean, at_s.mean, rtol=1e-12)
    np.testing.assert_allclose(slope**2 * at_t.variance + bridge.variance, at_s.variance, rtol=1e-12)


def test_eta_goes_from_no_noise_to_that_of_the_chain(schedule):
    """Song et al. 2021, Eq. 16: the standard deviation grows in proportion to eta."""
    none, half, full = (weights(schedule, T, S, eta)[2] for eta in (0.0, 0.5, 1.0))
    np.testing.assert_array_equal(none, np.zeros(len(S)))
    np.testing.assert_allclose([4 * half, full], [posterior_variance(schedule, T, S, 1)] * 2, rtol=1e-14)


def test_each_example_has_its_own_time():
    """Images of one batch at different t, each as if it were alone with a t that is a number."""
    schedule, t, s = schedules.linear(100), np.array([1, 40, 100]), np.array([0, 7, 99])
    x_t, x_0 = map(jnp.asarray, np.random.default_rng(0).normal(size=(2, 3, 2, 2, 1)).astype(np.float32))
    together = posterior(schedule, x_t, x_0, t, s)
    alone = [posterior(schedule, x_t, x_0, int(t[i]), int(s[i])) for i in range(3)]
    for i in range(3):
        np.testing.assert_allclose(together.mean[i], alone[i].mean[i], rtol=1e-6)
        np.testing.assert_allclose(together.variance[i], alone[i].variance[0], rtol=1e-6)


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
    before, step = transition(schedule, one, 0, t - 1), transition(schedule, one, t - 1, t)
    prior = before.mean**2 * data_variance + before.variance
    return float((prior - (step.mean * prior) ** 2 / (step.mean**2 * prior + step.variance))[0])


@pytest.mark.parametrize(("t", "lower", "exact", "upper"), ENTROPIES)
def test_the_two_variances_bound_the_entropy_of_a_step(t, lower, exact, upper, schedule):
    beta = transition(schedule, jnp.ones(1), t - 1, t).variance[0]
    small = posterior_variance(schedule, t, t - 1, 0)
    found = [entropy(variance) for variance in (small, reverse_variance(schedule, t, 0.25), beta)]
    np.testing.assert_allclose(found, [lower, exact, upper], atol=1e-9)
    assert found == sorted(found)


@pytest.mark.parametrize("t", [2, 10, 100, 1000])
def test_the_upper_bound_is_reached_by_data_of_unit_variance(t, schedule):
    beta = transition(schedule, jnp.ones(1), t - 1, t).variance[0]
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
    """Where the exact likelihood still distinguishes 90 from 100 deviations."""
    far = [-0.1, 0.0]
    np.testing.assert_allclose(log_masses(256, far, [0.01] * 2, gaussian.tanh_interval)[:, 0], np.log(1e-12))
    exact = log_masses(256, far, [0.01] * 2)[:, 0]
    assert -5100 < exact[1] < exact[0] - 900


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_the_levels_share_all_the_mass(levels, x64):
    means, deviations = [0.0, 0.3, -0.99, 1.2, -5.0], [0.01, 1.0, 1e-4, 0.3, 2.0]
    np.testing.assert_allclose(jnp.exp(log_masses(levels, means, deviations)).sum(1), 1, rtol=1e-12)


erf_interval = jax.jit(gaussian.erf_interval)


def test_neighbouring_intervals_merge(x64):
    """Two intervals that touch add up, also far out in a tail, where no mass is left but its logarithm."""
    edges = np.array([-1e4, -1e3, -40.0, -5.0, 0.0, 1.0, 40.0, 41.0, 1e3])
    a, b, c = edges[:-2], edges[1:-1], edges[2:]
    first, second, both = erf_interval(a, b), erf_interval(b, c), erf_interval(a, c)
    np.testing.assert_allclose(np.logaddexp(first, second), both, rtol=1e-13)


def test_the_mass_of_an_interval_is_that_of_its_mirror_image(x64):
    lower = np.array([-3.0, -0.5, 0.0, 2.0, 30.0, 1e3, -np.inf])
    upper = np.array([-2.0, 1.5, 0.1, 9.0, 31.0, 1e4, -40.0])
    np.testing.assert_allclose(erf_interval(lower, upper), erf_interval(-upper, -lower), rtol=1e-14)


def test_tanh_is_within_2e_4_of_the_normal_distribution_function(x64):
    """Its greatest error is 1.789326e-4, at 2.592 (found on a float64 grid)."""
    x = np.linspace(-5, 5, 10001)
    below = np.full(x.shape, -np.inf)
    error = np.abs(np.exp(jax.jit(gaussian.tanh_interval)(below, x)) - np.exp(erf_interval(below, x)))
    np.testing.assert_allclose(error.max(), 1.789326e-4, rtol=1e-5)
    np.testing.assert_allclose(np.abs(x[error.argmax()]), 2.592, atol=1e-3)


@pytest.mark.parametrize("levels", [2, 256])
def test_likelihood_and_its_slopes_stay_finite_in_float32(levels):
    """However far outside the mean lies, and however small the variance."""
    means, variances = (axis.ravel() for axis in np.meshgrid([-5, -1, 0, 0.999, 5], [1e-12, 1e-4, 1, 1e4]))
    x = np.tile(np.linspace(-1, 1, levels, dtype=np.float32), (len(means), 1))
    at = Normal(*(np.tile(row[:, None], levels).astype(np.float32) for row in (means, variances)))
    value, slopes = jax.jit(jax.value_and_grad(lambda dist: gaussian.discretized(levels)(dist, jnp.asarray(x)).sum()))(
        at
    )
    assert jnp.isfinite(value) and jnp.isfinite(slopes.mean).all() and jnp.isfinite(slopes.variance).all()
    # from outside the range the likelihood of an inner level always calls the mean in
    inner, outside = slice(1, -1), np.abs(at.mean[:, 0]) == 5
    assert np.all(np.asarray(slopes.mean * at.mean < 0)[outside, inner])


def test_forward_and_backward_slopes_of_the_likelihood_agree():
    """Also at the outermost levels, whose intervals are endless."""
    x, mean = jnp.linspace(-1, 1, 5), jnp.linspace(-2, 2, 7)[:, None] * jnp.ones((1, 5))

    def likelihood(mean):
        return gaussian.discretized(5)(Normal(mean, jnp.full((1, 1), 0.3)), x[None] * jnp.ones((7, 1)))

    forward = jax.jit(lambda mean: jax.jvp(likelihood, (mean,), (jnp.ones_like(mean),))[1])(mean)
    backward = jax.jit(jax.grad(lambda mean: likelihood(mean).sum()))(mean)
    assert jnp.isfinite(forward).all()
    np.testing.assert_allclose(forward, backward, rtol=1e-4, atol=1e-6)


def test_float32_likelihood_is_the_float64_one(request):
    rows = [-5.0, -5.0, 0.3, 0.3, 5.0, 5.0], [0.01, 0.3] * 3
    single = log_masses(256, *rows)
    request.getfixturevalue("x64")
    np.testing.assert_allclose(single, log_masses(256, *rows), rtol=1e-4, atol=1e-7)


def test_many_levels_are_a_density(x64):
    """log mass - log width of a level -> log density, with an error of the width squared."""
    gaps = []
    for levels in (257, 1025):
        density = jax.jit(gaussian.density)(Normal(np.float64(0.2), np.float64(0.09)), np.linspace(-1, 1, levels))
        gap = log_masses(levels, [0.2], [0.3])[0] - np.log(2 / (levels - 1)) - np.asarray(density)
        gaps.append(np.abs(gap[1:-1]).max())
    assert gaps[-1] < 3e-5
    np.testing.assert_allclose(gaps[0] / gaps[1], 16, rtol=0.02)


def test_the_default_likelihood_is_that_of_bytes():
    """An inner byte has about a 128th of the density; an outer one all that lies beyond, too."""
    dist, x_0 = Normal(jnp.zeros(5), jnp.ones(1)), jnp.linspace(-1, 1, 5)
    by_default, continuous = (
        gaussian.process(schedules.linear(10)),
        gaussian.process(schedules.linear(10), gaussian.density),
    )
    gap = jax.jit(lambda: continuous.log_likelihood(dist, x_0) - by_default.log_likelihood(dist, x_0))()
    np.testing.assert_allclose(gap[1:-1], np.log([127.5] * 3), atol=1e-4)
    np.testing.assert_allclose(gap[:: len(gap) - 1], np.log(0.24197 / 0.15866) * np.ones(2), atol=0.02)
