"""Gaussian data in four dimensions, two noisy measurements of an example, and the posterior that they leave."""

import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.diffusion.guidance import LinearMeasurement

SIZE, SIGMA, STEPS = 4, 0.3, 200
rng = np.random.default_rng(0)
ROOT = 0.5 * rng.normal(size=(SIZE, SIZE))
MEAN, COVARIANCE = np.array([0.3, -0.2, 0.5, 0.0]), 0.6 * ROOT @ ROOT.T + 0.05 * np.eye(SIZE)
A = rng.normal(size=(2, SIZE))
Y = A @ (MEAN + np.linalg.cholesky(COVARIANCE) @ rng.normal(size=SIZE)) + SIGMA * rng.normal(size=2)
GAIN = COVARIANCE @ A.T @ np.linalg.inv(A @ COVARIANCE @ A.T + SIGMA**2 * np.eye(2))
POSTERIOR_MEAN, POSTERIOR = MEAN + GAIN @ (Y - A @ MEAN), COVARIANCE - GAIN @ A @ COVARIANCE


def best_network(schedule):
    """E[noise | x_t] for data N(MEAN, COVARIANCE), by conditioning a Gaussian."""

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, 0)
        whole = alpha_bar * COVARIANCE.astype(x_t.dtype) + one_minus * jnp.eye(SIZE, dtype=x_t.dtype)
        centred = x_t - jnp.sqrt(alpha_bar) * MEAN.astype(x_t.dtype)[None]
        return jnp.sqrt(one_minus) * (centred @ jnp.linalg.inv(whole))

    return network


def problem(steps=STEPS, dtype=np.float32):
    process = gaussian.process(schedules.linear_scaled(steps, dtype), gaussian.density)
    measurement = LinearMeasurement(lambda x: jnp.asarray(A, x.dtype) @ x, (SIZE,), SIGMA)
    return process, parameterizations.eps(process), best_network(process.schedule), measurement


def errors(mean, covariance):
    """The error of the mean in standard deviations of the posterior, and the relative one of its covariance."""
    scale = np.linalg.inv(np.linalg.cholesky(POSTERIOR))
    change = scale @ covariance @ scale.T - np.eye(SIZE)
    return np.linalg.norm(scale @ (mean - POSTERIOR_MEAN)) / np.sqrt(SIZE), np.abs(np.linalg.eigvalsh(change)).max()


def of_samples(x):
    x = np.asarray(x, np.float64)
    return errors(x.mean(axis=0), np.cov(x.T))
