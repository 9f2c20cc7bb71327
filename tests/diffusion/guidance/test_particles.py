"""Twisted SMC: for Gaussian data and exact kernels it converges to the posterior as particles grow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys
from posterior import SIZE, Y, of_samples, problem

from ddpm_jax.diffusion import binomial, guidance, parameterizations, samplers, schedules

STEPS = 30


def drawn(num, particles, seed=0):
    """x_0 [num, particles, SIZE] and the memory at the end."""
    process, eps, network, measurement = problem(STEPS)
    x_T = jax.random.normal(jax.random.key(5 + seed), (num, particles, SIZE))
    times = samplers.times(STEPS, STEPS)

    @jax.jit
    def draw(batch_keys, x_T, y):
        sampler = guidance.twisted(process, eps, network, measurement, jnp.broadcast_to(y, (len(x_T), 2)))
        return samplers.stretch(batch_keys, sampler, x_T, sampler.init(x_T), times, 0, STEPS)

    return draw(keys(num, seed), x_T, jnp.asarray(Y, jnp.float32))


def test_more_particles_are_closer_to_the_posterior_of_the_model():
    """Each image's mean has a variance over images that falls as 1 / particles."""
    few, many = (np.asarray(drawn(64, count)[0].mean(axis=1), np.float64) for count in (8, 64))
    ratio = np.var(few, axis=0).sum() / np.var(many, axis=0).sum()
    assert 4 < ratio < 16


def test_the_mean_is_that_of_the_posterior():
    """Up to the error of the steps; the covariance is that of ancestral sampling with few steps, which is small."""
    x_0, memory = drawn(32, 64)
    assert of_samples(x_0.reshape(-1, SIZE))[0] < 0.1
    assert float(memory.effective.min()) >= 1 and float(memory.effective.max()) <= 64
    np.testing.assert_array_equal(memory.log_weights, np.zeros((32, 64)))


def test_the_first_particle_is_a_draw_as_good_as_the_others():
    """It would be the lowest of the order if resampling kept it."""
    x_0, _ = drawn(600, 8)
    first, rest = np.asarray(x_0[:, 0]), np.asarray(x_0).reshape(-1, SIZE)
    assert np.all(np.abs(first.mean(axis=0) - rest.mean(axis=0)) < 5 * rest.std(axis=0) / np.sqrt(600))


def test_an_image_depends_on_its_own_key_and_noise_only():
    whole, _ = drawn(6, 4)
    process, eps, network, measurement = problem(STEPS)
    sampler = guidance.twisted(process, eps, network, measurement, jnp.tile(jnp.asarray(Y, jnp.float32), (2, 1)))
    x_T = jax.random.normal(jax.random.key(5), (6, 4, SIZE))[2:4]
    times = samplers.times(STEPS, STEPS)
    part = jax.jit(lambda keys, x_T: samplers.sample(keys, sampler, x_T, times))(keys(6)[2:4], x_T)
    np.testing.assert_allclose(part, whole[2:4], atol=1e-4)


def test_bits_are_refused():
    process = binomial.process(schedules.steady(5), 0.3)
    _, _, network, measurement = problem(STEPS)
    with pytest.raises(ValueError, match="twisted SMC needs a Gaussian process"):
        guidance.twisted(process, parameterizations.logits(process), network, measurement, jnp.zeros((1, 2)))
