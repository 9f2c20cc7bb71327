"""Parameterizations: each inverts its own target, and all are one model in different words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules

NAMES = ["eps", "x0", "v", "mean"]
each_reading = pytest.mark.parametrize("name", NAMES)
each_time = pytest.mark.parametrize("t", [1, np.array([1, 2, 500, 1000])], ids=["one", "each its own"])


@pytest.fixture
def process(x64):
    return gaussian.process(schedules.linear(1000, dtype=np.float64))


def draws(count=4, dtype=np.float64):
    """x_0 within the range of images, noise, and any network's output."""
    x_0, noise, output = np.random.default_rng(0).normal(size=(3, count, 2, 2, 1)).astype(dtype)
    return jnp.asarray(np.tanh(x_0)), jnp.asarray(noise), jnp.asarray(output)


def reading(name, process, variance=parameterizations.fixed_small):
    return getattr(parameterizations, name)(process, variance)


def target(parameterization, x_0, noise, t):
    """The output whose error is least: one Newton step from zero, which is exact for a square."""
    slope = jax.grad(lambda output: parameterization.error(output, x_0, noise, t).sum())(jnp.zeros_like(x_0))
    return -slope / 2


def output_for(parameterization, process, x_0, x_t, t):
    """The output that states this x_0 at x_t: the target under the noise that leads from one to the other."""
    start, per_noise = (gaussian.q_sample(process.schedule, x_0, t, jnp.full_like(x_0, n)) for n in (0.0, 1.0))
    return target(parameterization, x_0, (x_t - start) / (per_noise - start), t)


@each_reading
@each_time
def test_reading_the_target_gives_x_0_back(name, t, process):
    x_0, noise, _ = draws()
    parameterization = reading(name, process)
    best = target(parameterization, x_0, noise, t)
    x_t = gaussian.q_sample(process.schedule, x_0, t, noise)
    np.testing.assert_allclose(parameterization.x_0(best, x_t, t), x_0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parameterization.error(best, x_0, noise, t), jnp.zeros_like(x_0), atol=1e-24)


@each_reading
@each_time
def test_error_is_the_squared_distance_to_the_target(name, t, process):
    x_0, noise, output = draws()
    parameterization = reading(name, process)
    distance = output - target(parameterization, x_0, noise, t)
    np.testing.assert_allclose(parameterization.error(output, x_0, noise, t), distance**2, rtol=1e-10)
    assert jnp.all(jnp.abs(distance) > 0)


@each_time
def test_targets_are_what_the_papers_say(t, process):
    """The noise (2020, Eq. 12), the image, and the mean of the posterior (2020, Eq. 8)."""
    x_0, noise, _ = draws()
    posterior = process.posterior(gaussian.q_sample(process.schedule, x_0, t, noise), x_0, t, t - 1)
    for name, stated in {"eps": noise, "x0": x_0, "mean": posterior.mode()}.items():
        np.testing.assert_allclose(target(reading(name, process), x_0, noise, t), stated, rtol=1e-12)


@each_time
def test_v_is_the_velocity_of_x_t(t, process):
    """x_t turns from x_0 to the noise by an angle, and v is its derivative (Salimans & Ho 2022, Appendix D)."""
    x_0, noise, _ = draws()
    alpha_bar, one_minus = process.schedule.at(t, 4)
    angle = jnp.broadcast_to(jnp.arctan2(jnp.sqrt(one_minus), jnp.sqrt(alpha_bar)), x_0.shape)
    x_t, velocity = jax.jvp(lambda a: jnp.cos(a) * x_0 + jnp.sin(a) * noise, (angle,), (jnp.ones_like(angle),))
    np.testing.assert_allclose(x_t, gaussian.q_sample(process.schedule, x_0, t, noise), rtol=1e-10)
    np.testing.assert_allclose(target(reading("v", process), x_0, noise, t), velocity, rtol=1e-10)


@each_reading
def test_kernel_is_the_posterior_of_the_stated_x_0(name, process):
    """Hence the same for all of them, when they state the same; also over strides."""
    t, s = np.array([1, 1000, 2, 700]), np.array([0, 0, 1, 300])
    x_0, x_t, _ = draws()
    parameterization = reading(name, process)
    kernel = parameterization.kernel(output_for(parameterization, process, x_0, x_t, t), x_t, t, s)
    posterior = process.posterior(x_t, x_0, t, s)
    np.testing.assert_allclose(kernel.mean, posterior.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(kernel.variance[2:], posterior.variance[2:], rtol=1e-12)


@each_reading
def test_float32_reads_its_target_at_every_time(name):
    """With as much noise as the reading has: 1 / sqrt(alpha_bar) for eps, 1 / weight of x_0 for mean."""
    process, t = gaussian.process(schedules.linear(1000)), np.arange(1, 1001)
    parameterization = reading(name, process)

    @jax.jit
    def read(x_0, noise, _):
        best, x_t = target(parameterization, x_0, noise, t), gaussian.q_sample(process.schedule, x_0, t, noise)
        return jax.jvp(lambda output: parameterization.x_0(output, x_t, t), (best,), (jnp.ones_like(best),))

    at = draws(1000, np.float32)
    found, amplification = read(*at)
    assert np.all(np.abs(found - at[0]) < 2e-6 * (1 + np.abs(amplification)))


# t, variance of the small and of the large choice (2020, Section 3.2, with the schedule of that paper), by a float64
# recursion; at t = 1 both are that of the posterior at t = 2, as in the released code
VARIANCES = [
    (1, np.exp(-9.81672513529567), np.exp(-9.81672513529567)),
    (2, 5.4531876613e-05, 1.1991991992e-4),
    (10, 2.38182027823e-4, 2.79279279279e-4),
    (100, 2.03459625949e-3, 2.07207207207e-3),
    (500, 0.0100313554146, 0.01004004004),
    (1000, 0.0199999835266, 0.02),
]


def test_fixed_variances(process):
    t, *expected = np.array(VARIANCES).T
    rules = parameterizations.fixed_small, parameterizations.fixed_large
    found = [rule(process.schedule, t.astype(int), t.astype(int) - 1, 1) for rule in rules]
    np.testing.assert_allclose(found, expected, rtol=5e-11)


@pytest.mark.parametrize("variance", [parameterizations.fixed_small, parameterizations.fixed_large])
def test_each_example_has_the_variance_of_its_time(variance, process):
    t = np.array([1, 2, 500, 1000])
    together = variance(process.schedule, t, t - 1, 4)
    alone = [variance(process.schedule, i, i - 1, 3) for i in t]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


@each_reading
@pytest.mark.parametrize("variance", [parameterizations.fixed_small, parameterizations.fixed_large])
def test_kernel_has_the_variance_it_was_given(name, variance, process):
    _, x_t, output = draws()
    t = np.array([1, 2, 500, 1000])
    kernel = reading(name, process, variance).kernel(output, x_t, t, t - 1)
    np.testing.assert_allclose(kernel.variance, variance(process.schedule, t, t - 1, 4), rtol=1e-14)


@each_reading
def test_clipping_moves_the_kernel_to_the_clipped_x_0(name, process):
    _, x_t, output = draws()
    t = np.array([1, 2, 500, 1000])
    plain = reading(name, process, parameterizations.fixed_large)
    clipped = parameterizations.clipped(plain)
    far = output_for(plain, process, 3 * output, x_t, t)  # states an x_0 outside the range
    x_0 = clipped.x_0(far, x_t, t)
    np.testing.assert_allclose(x_0, jnp.clip(3 * output, -1, 1), rtol=1e-8)
    assert jnp.abs(plain.x_0(far, x_t, t)).max() > 2 and jnp.abs(x_0).max() == 1
    kernel = clipped.kernel(far, x_t, t, t - 1)
    np.testing.assert_allclose(kernel.mean, process.posterior(x_t, x_0, t, t - 1).mean, rtol=1e-12)
    np.testing.assert_array_equal(kernel.variance, plain.kernel(far, x_t, t, t - 1).variance)


@each_reading
def test_clipping_changes_neither_the_error_nor_what_lies_inside(name, process):
    x_0, x_t, output = draws()
    plain = reading(name, process)
    clipped = parameterizations.clipped(plain)
    np.testing.assert_array_equal(clipped.error(output, x_0, x_t, 500), plain.error(output, x_0, x_t, 500))
    inside = output_for(plain, process, x_0, x_t, 500)
    for with_, without in zip(clipped.kernel(inside, x_t, 500, 499), plain.kernel(inside, x_t, 500, 499), strict=True):
        np.testing.assert_allclose(with_, without, rtol=1e-12)


def test_clipping_has_the_bounds_it_was_given(process):
    _, x_t, output = draws()
    clipped = parameterizations.clipped(reading("x0", process), low=-0.25, high=0.5)
    np.testing.assert_array_equal(clipped.x_0(output, x_t, 3), jnp.clip(output, -0.25, 0.5))


@each_reading
@pytest.mark.parametrize("make", [schedules.linear, schedules.steady, schedules.cosine])
def test_error_has_finite_slopes_at_both_ends(name, make):
    """In float32, and also where nothing is left of the data."""
    parameterization, t = reading(name, gaussian.process(make(1000))), np.array([1, 1000, 1, 1000])
    at = draws(dtype=np.float32)
    slopes = jax.grad(lambda x_0, noise, output: parameterization.error(output, x_0, noise, t).sum(), (0, 1, 2))(*at)
    assert all(jnp.isfinite(slope).all() for slope in slopes)
    assert jnp.all(jnp.abs(slopes[2]) > 0)


@each_reading
def test_divergence_has_finite_slopes(name):
    """The gradient of a term of the bound, through the reading and the kernel, float32."""
    t = np.array([2, 3, 500, 1000])
    process = gaussian.process(schedules.linear(1000))
    x_0, x_t, output = draws(dtype=np.float32)
    kernel = reading(name, process).kernel

    def divergence(output):
        return process.posterior(x_t, x_0, t, t - 1).kl(kernel(output, x_t, t, t - 1)).sum()

    slope = jax.grad(divergence)(output)
    assert jnp.isfinite(slope).all() and jnp.all(jnp.abs(slope) > 0)


def test_what_was_clipped_is_kept_and_is_what_the_bound_trains():
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    reading = parameterizations.eps(process)
    clipped = parameterizations.clipped(reading)
    assert clipped.unclipped is reading and reading.unclipped is None

    def loss(scale, parameterization):
        def network(x_t, t, condition):
            return scale * x_t

        x_0 = jnp.ones((64, 2))
        return losses.variational(jax.random.key(0), process, parameterization, network, x_0).mean()

    ours, theirs = (jax.value_and_grad(loss)(-9.0, one) for one in (clipped, reading))
    assert ours == theirs and theirs[1] != 0


def test_a_learned_variance_that_is_the_fixed_one_changes_nothing():
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    fixed = parameterizations.eps(process, parameterizations.fixed_large)
    learned = parameterizations.learned(fixed)
    x_t, output = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in (0, 1))
    t = jnp.array([1, 5, 10])
    log_variance = jnp.log(jnp.broadcast_to(fixed.kernel(output, x_t, t, t - 1).variance, x_t.shape))
    both = jnp.concatenate([output, log_variance], axis=-1)
    for ours, theirs in zip(learned.kernel(both, x_t, t, t - 1), fixed.kernel(output, x_t, t, t - 1), strict=True):
        np.testing.assert_allclose(ours, jnp.broadcast_to(theirs, ours.shape), rtol=1e-5)
    np.testing.assert_array_equal(learned.x_0(both, x_t, t), fixed.x_0(output, x_t, t))
    np.testing.assert_array_equal(learned.error(both, x_t, x_t, t), fixed.error(output, x_t, x_t, t))
    clipped = parameterizations.clipped(learned).kernel(both, x_t, t, t - 1)
    np.testing.assert_allclose(clipped.variance, jnp.exp(log_variance), rtol=1e-6)
