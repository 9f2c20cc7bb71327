"""Heun's method in the noise level sigma / alpha (Karras et al. 2022), for networks with a discrete schedule."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler


def heun(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    condition: Array | None = None,
    churn: ArrayLike = 0.0,
    noise_scale: ArrayLike = 1.0,
) -> Sampler:
    """Heun's second-order method with optional churn (Karras et al. 2022, Algorithm 2), two network calls per step.

        y = x / alpha,    level = sigma / alpha,    d(y, level) = (y - x_0(alpha y, t)) / level
        raised = (1 + churn) level_t,    y' = y_t + sqrt(raised^2 - level_t^2) noise_scale z,    z ~ N(0, 1)
        y'' = y' + (level_s - raised) d(y', raised)
        y_s = y' + (level_s - raised) (d(y', raised) + d(y'', level_s)) / 2

    `churn` is gamma of the paper, S_churn divided by the number of steps, from 0 (deterministic) to sqrt(2) - 1;
    `noise_scale` is S_noise. A raised level is at most that of T. The step to the data, where the level is 0, is y_s =
    x_0(x', t): Euler's, which is `ddim` in these variables. The paper uses the spacing `karras`.
    """
    process.require_gaussian("Heun's method", signal=True)

    def estimate(y: Array, t: Array) -> Array:
        x = jnp.sqrt(process.schedule.at(t, y.ndim)[0]) * y
        return parameterization.x_0(network(x, t, condition), x, t)

    def step(keys: Array, x_t: Array, memory: Any, t: Array, s: Array) -> tuple[Array, Any]:
        (alpha_bar, one_minus), (alpha_bar_s, one_minus_s) = (process.schedule.at(each, x_t.ndim) for each in (t, s))
        level, level_s = jnp.sqrt(one_minus / alpha_bar), jnp.sqrt(one_minus_s / alpha_bar_s)
        y, raised_t, raised = x_t / jnp.sqrt(alpha_bar), t, level
        if not (isinstance(churn, int | float) and churn == 0):
            y, raised_t, raised = _churned(process, keys, y, level, t, churn, noise_scale)
        x_0 = estimate(y, raised_t)
        slope = (y - x_0) / raised

        def second() -> Array:
            slope_s = (y + (level_s - raised) * slope - estimate(y + (level_s - raised) * slope, s)) / level_s
            return jnp.sqrt(alpha_bar_s) * (y + (level_s - raised) * (slope + slope_s) / 2)

        return jax.lax.cond(s > 0, second, lambda: x_0), memory

    return Sampler(init=lambda x_T: None, step=step)


def _churned(
    process: Process, keys: Array, y: Array, level: Array, t: Array, churn: ArrayLike, noise_scale: ArrayLike
) -> tuple[Array, Array, Array]:
    """y with more noise, its time and its level; y as it is where churn is 0."""
    raises = jnp.asarray(churn) > 0
    raised_t = process.schedule.time_of(-2 * jnp.log((1 + churn) * level)).reshape(jnp.shape(t))
    raised_t = jnp.where(raises, raised_t, t)
    alpha_bar, one_minus = process.schedule.at(raised_t, y.ndim)
    raised = jnp.maximum(jnp.sqrt(one_minus / alpha_bar), level)
    added = jnp.where(raises, jnp.maximum(jnp.square(raised) - jnp.square(level), 0), 0.0)
    return Normal(y, jnp.square(noise_scale) * added).sample(keys), raised_t, raised
