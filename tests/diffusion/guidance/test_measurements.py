"""Samples given a linear measurement, for Gaussian data, whose posterior is known; and the measurements themselves."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys
from posterior import COVARIANCE, MEAN, SIGMA, SIZE, STEPS, A, Y, errors, of_samples, problem

from ddpm_jax.diffusion import guidance, parameterizations, samplers
from ddpm_jax.diffusion.guidance import measurements


def of_flow(method, steps, **numbers):
    """The errors of DDIM without noise, exactly: x_0 is an affine function of x_T, whose distribution is N(0, 1)."""
    process, eps, network, measurement = problem(steps, np.float64)
    given = method(process, eps, network, measurement, jnp.tile(Y, (SIZE + 1, 1)), **numbers)
    sampler = samplers.ddim(process, parameterizations.x0(process), given)
    x_T = jnp.concatenate([jnp.zeros((1, SIZE)), jnp.eye(SIZE)])
    x_0 = np.asarray(jax.jit(lambda x: samplers.sample(keys(SIZE + 1), sampler, x, samplers.times(steps, steps)))(x_T))
    root = (x_0[1:] - x_0[0]).T
    return errors(x_0[0], root @ root.T)


def test_mmps_converges_to_the_posterior_as_steps_grow(x64):
    """The covariance of first order, as DDIM: twice as many steps, half the error. The mean is right from the start."""
    found = [of_flow(guidance.mmps, steps) for steps in (100, 200, 400)]
    for coarse, fine in pairwise(found):
        assert fine[1] < 0.65 * coarse[1] and fine[0] < 0.01
    assert found[-1][1] < 0.06


def test_pigdm_is_biased_however_many_steps(x64):
    few, many = (of_flow(guidance.pigdm, steps) for steps in (200, 400))
    assert many[0] > 0.1 and many[1] > 0.4
    np.testing.assert_allclose(many, few, rtol=0.15)


def test_pigdm_is_exact_for_the_data_it_assumes(x64):
    """N(0, 1), whose covariance given x_t is 1 - alpha_bar_t: the same as `mmps`."""
    process, eps, _, measurement = problem(50, np.float64)
    network = lambda x_t, t, condition: jnp.sqrt(process.schedule.at(t, x_t.ndim)[1]) * x_t  # noqa: E731
    x_t, y = jax.random.normal(jax.random.key(0), (3, SIZE)), jnp.tile(Y, (3, 1))
    both = [
        method(process, eps, network, measurement, y)(x_t, jnp.array([1, 20, 50]), None)
        for method in (guidance.mmps, guidance.pigdm)
    ]
    np.testing.assert_allclose(*both, rtol=1e-9)


def test_the_output_of_mmps_is_the_mean_given_both(x64):
    """E[x_0 | x_t, y], by conditioning the Gaussian on the two together; with a time for each example."""
    process, eps, network, measurement = problem(50, np.float64)
    x_t = jax.random.normal(jax.random.key(0), (1, SIZE))
    given = guidance.mmps(process, eps, network, measurement, jnp.asarray(Y)[None])
    for t in (1, 25, 50):
        alpha_bar, one_minus = (float(each) for each in process.schedule.at(t, 0))
        both = np.concatenate([np.sqrt(alpha_bar) * np.eye(SIZE), A])
        noise = np.diag([one_minus] * SIZE + [SIGMA**2] * 2)
        gain = COVARIANCE @ both.T @ np.linalg.inv(both @ COVARIANCE @ both.T + noise)
        expected = MEAN + gain @ (np.concatenate([x_t[0], Y]) - both @ MEAN)
        np.testing.assert_allclose(given(x_t, jnp.full(1, t), None)[0], expected, rtol=1e-4)


def draw(sampler, count, steps=STEPS, shape=()):
    x_T = jax.random.normal(jax.random.key(5), (count, *shape, SIZE))
    return jax.jit(lambda x: samplers.sample(keys(count), sampler, x, samplers.times(steps, steps)))(x_T)


def test_dps_finds_the_measurement_and_loses_the_spread():
    """Its covariance along the measured directions does not follow sigma: see docs/editing.md."""
    process, eps, network, measurement = problem()
    y = jnp.tile(jnp.asarray(Y, jnp.float32), (2000, 1))
    plain = samplers.ddim(process, eps, network, eta=1.0)
    x_0 = draw(guidance.dps(plain, eps, network, measurement, y), 2000)
    far = np.linalg.norm(A @ MEAN - Y)
    assert np.linalg.norm(np.mean(x_0, axis=0) @ A.T - Y) < 0.3 * far
    assert of_samples(x_0)[1] > 0.5


def test_dps_of_scale_0_is_the_sampler_itself():
    process, eps, network, measurement = problem(25)
    plain = samplers.ddim(process, eps, network, eta=1.0)
    y = jnp.tile(jnp.asarray(Y, jnp.float32), (3, 1))
    guided = guidance.dps(plain, eps, network, measurement, y, scale=0.0)
    np.testing.assert_allclose(draw(guided, 3, 25), draw(plain, 3, 25), rtol=1e-6)


@pytest.mark.parametrize(
    "measurement",
    [
        measurements.masked(np.random.default_rng(0).random((4, 6, 3)) > 0.4, 0.1),
        measurements.pooled((4, 6, 3), 2, 0.1),
        measurements.blurred((4, 6, 3), 1.2, 0.1),
        measurements.grey((4, 6, 3), 0.1),
    ],
    ids=["masked", "pooled", "blurred", "grey"],
)
def test_a_transpose_has_the_same_inner_products(measurement, x64):
    """<A x, y> = <x, A^T y>, and a constant image is measured as that constant."""
    key_x, key_y = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (4, 6, 3))
    measured = measurement.forward(x)
    y = jax.random.normal(key_y, measured.shape)
    np.testing.assert_allclose((measured * y).sum(), (x * measurement.transpose(y)).sum(), rtol=1e-6)
    np.testing.assert_allclose(measurement.forward(jnp.full((4, 6, 3), 0.7)), jnp.full(measured.shape, 0.7), rtol=1e-6)


def test_measurements_have_their_noise():
    x_0 = jnp.zeros((500, 4, 4, 1))
    y = measurements.pooled((4, 4, 1), 2, 0.5).observe(keys(500), x_0)
    assert abs(float(y.std()) - 0.5) < 0.04


def test_measurements_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="--factor 3 does not divide the 8x8 pixels"):
        measurements.pooled((8, 8, 1), 3, 0.1)
    with pytest.raises(ValueError, match="--blur must be above 0, got 0"):
        measurements.blurred((8, 8, 1), 0.0, 0.1)
    with pytest.raises(ValueError, match="3 channels, and those of this run have 1"):
        measurements.grey((8, 8, 1), 0.1)
