"""The simple loss of known best predictors, and that it draws every time."""

import jax
import jax.numpy as jnp
import numpy as np
from known import best_eps, best_eps_of_two

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules


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
