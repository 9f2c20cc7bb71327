"""Data whose best predictor is known, the variances that are exact for them, and every schedule."""

from functools import partial

import jax
import jax.numpy as jnp

from ddpm_jax.diffusion import schedules

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
