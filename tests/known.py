"""Data whose best predictor is known, networks' outputs for a given x_0, and every schedule."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules

SCHEDULES = {
    "linear": partial(schedules.linear, 1000),
    "quadratic": partial(schedules.quadratic, 1000),
    "constant": partial(schedules.constant, 1000),
    "warmup": partial(schedules.warmup, 1000),
    "sigmoid": partial(schedules.sigmoid, 1000),
    "steady": partial(schedules.steady, 1000),
    "cosine": partial(schedules.cosine, 1000),
    "cosine 4000": partial(schedules.cosine, 4000),
}
"""Each is a function of the dtype."""


def tables(schedule):
    """The four tables of a schedule."""
    return (
        schedule.alpha_bar,
        schedule.one_minus_alpha_bar,
        schedule.log_alpha_bar,
        schedule.log_alpha_bar_rest,
    )


def keys(count, seed=0):
    """A key for each example."""
    return jax.random.split(jax.random.key(seed), count)


def forward_variance(schedule, t, s, ndim):
    """beta_t at every t, the first included: exact for data of unit variance."""
    return schedule.between(s, t, ndim)[1]


def best_eps(schedule, variance, mean=0.0):
    """E[noise | x_t] for data N(mean, variance), by conditioning a Gaussian; `variance` may differ by element."""

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


def images(count=4, dtype=np.float64):
    """x_0 within the range of images, noise, and some network's output."""
    x_0, noise, output = np.random.default_rng(0).normal(size=(3, count, 2, 2, 1)).astype(dtype)
    return jnp.asarray(np.tanh(x_0)), jnp.asarray(noise), jnp.asarray(output)


def target(parameterization, x_0, noise, t):
    """The output whose error is least: one Newton step from zero, which is exact for a square."""
    slope = jax.grad(lambda output: parameterization.error(output, x_0, noise, t).sum())(jnp.zeros_like(x_0))
    return -slope / 2


def output_for(parameterization, process, x_0, x_t, t):
    """The output whose estimate at x_t is this x_0: the target for the noise that leads from one to the other."""
    start, per_noise = (gaussian.q_sample(process.schedule, x_0, t, jnp.full_like(x_0, n)) for n in (0.0, 1.0))
    return target(parameterization, x_0, (x_t - start) / (per_noise - start), t)


T, TIMES = 30, samplers.times(30, 6)
"""The number of steps of `problem`, and six of its times."""


@cache
def problem():
    """A process of T steps, its parameterization by eps, and the best network for data N(0.2, 0.4)."""
    process = gaussian.process(schedules.linear(T, 1e-3, 0.3))
    return process, parameterizations.eps(process), best_eps(process.schedule, 0.4, mean=0.2)


def start():
    """x_T of eight examples."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 2, 1)).astype(np.float32))


@partial(jax.jit, static_argnums=0)
def moments(kernel, times):
    """Mean and variance of the last state, without and with its noise, of a walk from N(0, 1).

    The kernel's mean is affine in x_t, so its value at 0 and at 1 carries the moments along, exactly.
    """

    def step(state, pair):
        mean, _, variance = state
        at_0, at_1 = (kernel(jnp.full(mean.shape, x), *pair) for x in (0.0, 1.0))
        slope = at_1.mode() - at_0.mode()
        noiseless = slope**2 * variance
        return (at_0.mode() + slope * mean, noiseless, noiseless + at_0.variance), None

    zero, one = jnp.zeros(2), jnp.ones(2)
    return jax.lax.scan(step, (zero, one, one), (times[:-1], times[1:]))[0]
