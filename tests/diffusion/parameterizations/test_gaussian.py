"""Parameterizations of Gaussian processes: each inverts its own target, and all describe one model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import images, output_for, target

from ddpm_jax.diffusion import gaussian, parameterizations, schedules

each_kind = pytest.mark.parametrize("kind", ["eps", "x0", "v", "mean"])
each_time = pytest.mark.parametrize("t", [1, np.array([1, 2, 500, 1000])], ids=["one", "each its own"])


@pytest.fixture
def process(x64):
    return gaussian.process(schedules.linear(1000, dtype=np.float64))


def make(kind, process, variance=parameterizations.fixed_small):
    return getattr(parameterizations, kind)(process, variance)


@each_kind
@each_time
def test_the_target_as_output_gives_x_0_back(kind, t, process):
    x_0, noise, _ = images()
    parameterization = make(kind, process)
    best = target(parameterization, x_0, noise, t)
    x_t = gaussian.q_sample(process.schedule, x_0, t, noise)
    np.testing.assert_allclose(parameterization.x_0(best, x_t, t), x_0, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(parameterization.error(best, x_0, noise, t), jnp.zeros_like(x_0), atol=1e-24)


@each_kind
def test_the_target_gives_x_0_back_at_real_times(kind, process):
    """`mean` needs t - 1 to be a time, which leaves out t between 1 and 2."""
    x_0, noise, _ = images()
    parameterization, t = make(kind, process), np.array([1.0, 2.0, 499.3, 999.999])
    x_t = gaussian.q_sample(process.schedule, x_0, t, noise)
    best = target(parameterization, x_0, noise, t)
    np.testing.assert_allclose(parameterization.x_0(best, x_t, t), x_0, rtol=1e-8, atol=1e-8)
    kernel = parameterization.kernel(best, x_t, t, np.array([0.0, 1.0, 300.7, 999.998]))
    np.testing.assert_allclose(
        kernel.mean, process.posterior(x_t, x_0, t, np.array([0.0, 1.0, 300.7, 999.998])).mean, rtol=1e-8, atol=1e-9
    )
    between = parameterization.x_0(best, x_t, 1.5)
    assert np.isnan(between).all() if kind == "mean" else np.isfinite(between).all()


@each_kind
@each_time
def test_error_is_the_squared_distance_to_the_target(kind, t, process):
    x_0, noise, output = images()
    parameterization = make(kind, process)
    distance = output - target(parameterization, x_0, noise, t)
    np.testing.assert_allclose(parameterization.error(output, x_0, noise, t), distance**2, rtol=1e-10)
    assert jnp.all(jnp.abs(distance) > 0)


@each_time
def test_targets_are_those_of_the_papers(t, process):
    """The noise (2020, Eq. 12), the image, and the mean of the posterior (2020, Eq. 8)."""
    x_0, noise, _ = images()
    posterior = process.posterior(gaussian.q_sample(process.schedule, x_0, t, noise), x_0, t, t - 1)
    for kind, stated in {"eps": noise, "x0": x_0, "mean": posterior.mode()}.items():
        np.testing.assert_allclose(target(make(kind, process), x_0, noise, t), stated, rtol=1e-12)


@each_time
def test_v_is_the_velocity_of_x_t(t, process):
    """x_t turns from x_0 to the noise by an angle, and v is its derivative (Salimans & Ho 2022, Appendix D)."""
    x_0, noise, _ = images()
    alpha_bar, one_minus = process.schedule.at(t, 4)
    angle = jnp.broadcast_to(jnp.arctan2(jnp.sqrt(one_minus), jnp.sqrt(alpha_bar)), x_0.shape)
    x_t, velocity = jax.jvp(lambda a: jnp.cos(a) * x_0 + jnp.sin(a) * noise, (angle,), (jnp.ones_like(angle),))
    np.testing.assert_allclose(x_t, gaussian.q_sample(process.schedule, x_0, t, noise), rtol=1e-10)
    np.testing.assert_allclose(target(make("v", process), x_0, noise, t), velocity, rtol=1e-10)


@each_kind
def test_kernel_is_the_posterior_of_the_estimate(kind, process):
    """Hence the same for all of them when their estimates are the same; also over strides."""
    t, s = np.array([1, 1000, 2, 700]), np.array([0, 0, 1, 300])
    x_0, x_t, _ = images()
    parameterization = make(kind, process)
    kernel = parameterization.kernel(output_for(parameterization, process, x_0, x_t, t), x_t, t, s)
    posterior = process.posterior(x_t, x_0, t, s)
    np.testing.assert_allclose(kernel.mean, posterior.mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(kernel.variance[2:], posterior.variance[2:], rtol=1e-12)


@each_kind
@pytest.mark.parametrize("variance", [parameterizations.fixed_small, parameterizations.fixed_large])
def test_kernel_has_the_variance_it_was_given(kind, variance, process):
    _, x_t, output = images()
    t = np.array([1, 2, 500, 1000])
    parameterization = make(kind, process, variance)
    assert (parameterization.name, parameterization.variance, parameterization.clip) == (kind, variance, None)
    kernel = parameterization.kernel(output, x_t, t, t - 1)
    np.testing.assert_allclose(kernel.variance, variance(process.schedule, t, t - 1, 4), rtol=1e-14)


@each_kind
def test_float32_inverts_the_target_at_every_time(kind):
    """With as much noise as the inverse has: 1 / sqrt(alpha_bar) for eps, 1 / weight of x_0 for mean."""
    process, t = gaussian.process(schedules.linear(1000)), np.arange(1, 1001)
    parameterization = make(kind, process)

    @jax.jit
    def invert(x_0, noise, _):
        best, x_t = target(parameterization, x_0, noise, t), gaussian.q_sample(process.schedule, x_0, t, noise)
        return jax.jvp(lambda output: parameterization.x_0(output, x_t, t), (best,), (jnp.ones_like(best),))

    at = images(1000, np.float32)
    found, amplification = invert(*at)
    assert np.all(np.abs(found - at[0]) < 2e-6 * (1 + np.abs(amplification)))


@each_kind
@pytest.mark.parametrize("schedule", [schedules.linear, schedules.steady, schedules.cosine])
def test_error_has_finite_slopes_at_both_ends(kind, schedule):
    """In float32, and also where nothing is left of the data."""
    parameterization, t = make(kind, gaussian.process(schedule(1000))), np.array([1, 1000, 1, 1000])
    at = images(dtype=np.float32)
    slopes = jax.grad(lambda x_0, noise, output: parameterization.error(output, x_0, noise, t).sum(), (0, 1, 2))(*at)
    assert all(jnp.isfinite(slope).all() for slope in slopes)
    assert jnp.all(jnp.abs(slopes[2]) > 0)


@each_kind
def test_divergence_has_finite_slopes(kind):
    """The gradient of a term of the bound, through the parameterization and the kernel, float32."""
    t = np.array([2, 3, 500, 1000])
    process = gaussian.process(schedules.linear(1000))
    x_0, x_t, output = images(dtype=np.float32)
    kernel = make(kind, process).kernel

    def divergence(output):
        return process.posterior(x_t, x_0, t, t - 1).kl(kernel(output, x_t, t, t - 1)).sum()

    slope = jax.grad(divergence)(output)
    assert jnp.isfinite(slope).all() and jnp.all(jnp.abs(slope) > 0)
