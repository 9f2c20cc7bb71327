"""The parameterizations of Sohl-Dickstein et al. 2015: networks that output the mean and variance of single steps."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.distributions import Normal, expectation
from ddpm_jax.diffusion.gaussian import q_sample
from ddpm_jax.diffusion.parameterizations.gaussian import x_0_of_mean
from ddpm_jax.diffusion.parameterizations.kernels import at_data
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Parameterization, Process, Rules


def shrinking(process: Process, printed: bool = False) -> Parameterization:
    """The mean and variance of the paper (2015, Eqs. 64-65); the network outputs the channels z_mu, then z_Sigma.

        variance = sigmoid(z_Sigma + logit(beta_t))
        mean     = (x_t - z_mu) sqrt(1 - variance) + z_mu

    For a longer step, from t to s < t - 1, the variance has 1 - alpha_bar_t / alpha_bar_s for beta_t. The paper prints
    1 - variance without the square root, which `printed` computes. With the root, a network that outputs zeros maps
    unit variance to unit variance. Undefined where the parameterization `mean` is undefined.
    """
    return Parameterization(process, _shrinking(printed), "shrinking")


@lru_cache
def _shrinking(printed: bool) -> Rules:
    def odds(process, output, x_t, t, s):
        return _log_odds(process.schedule, t, s, x_t.ndim) + jnp.split(output, 2, axis=-1)[1]

    def mean(process, output, x_t, t):
        centre, kept = jnp.split(output, 2, axis=-1)[0], jax.nn.sigmoid(-odds(process, output, x_t, t, t - 1))
        return (x_t - centre) * (kept if printed else jnp.sqrt(kept)) + centre

    return _of_steps(mean, lambda *arguments: jax.nn.sigmoid(odds(*arguments)))


def shifted(process: Process, num_steps: int) -> Parameterization:
    """The mean and variance of the released code of 2015; the network outputs the channels z_mu, then z_Sigma.

        variance = sigmoid(z_Sigma / sqrt(num_steps) + logit(beta_t))
        mean     = sqrt(1 - beta_t) x_t + sqrt(beta_t) z_mu

    For a longer step, from t to s < t - 1, the variance has 1 - alpha_bar_t / alpha_bar_s for beta_t. Undefined where
    the parameterization `mean` is undefined.
    """
    return Parameterization(process, _shifted(num_steps), "shifted")


@lru_cache
def _shifted(num_steps: int) -> Rules:
    def mean(process, output, x_t, t):
        alpha, beta = process.schedule.between(t - 1, t, x_t.ndim)
        return jnp.sqrt(alpha) * x_t + jnp.sqrt(beta) * jnp.split(output, 2, axis=-1)[0]

    def variance(process, output, x_t, t, s):
        shift = jnp.split(output, 2, axis=-1)[1] / num_steps**0.5
        return jax.nn.sigmoid(_log_odds(process.schedule, t, s, x_t.ndim) + shift)

    return _of_steps(mean, variance)


def _log_odds(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    alpha, beta = schedule.between(s, t, ndim)
    return jnp.log(beta) - jnp.log(alpha)


def _of_steps(mean: Callable, variance: Callable) -> Rules:
    """The rules of a network that outputs the mean of the step from t to t - 1.

    The estimate of x_0 is the x_0 for which q(x_{t-1} | x_t, x_0) has this mean. The kernel of a longer step has the
    mean of q(x_s | x_t, x_0) for that estimate.
    """

    def error(process, output, clean, noise, t):
        x_t = q_sample(process.schedule, clean, t, noise)
        return jnp.square(mean(process, output, x_t, t) - process.posterior(x_t, clean, t, t - 1).mode())

    def x_0(process, output, x_t, t):
        return x_0_of_mean(process, mean(process, output, x_t, t), x_t, t)

    def kernel(process, output, x_t, t, s):
        long = process.posterior(x_t, x_0(process, output, x_t, t), t, s).mode()
        single = at_data(jnp.asarray(t) - 1 - jnp.asarray(s), x_t.ndim)
        chosen = jnp.where(single, mean(process, output, x_t, t), long)
        return Normal(chosen, variance(process, output, x_t, t, s))

    return Rules(error, x_0, kernel)


def fixed_last(process: Process, parameterization: Parameterization) -> Parameterization:
    """The parameterization with a fixed last step, from x_1 to x_0, which ignores the network (2015, Eq. 44).

        p(x_0 | x_1) = q(x_1 | x_0) pi(x_0) / pi(x_1)

    The forward chain is reversible, so this kernel is the forward transition from time 0 to time 1, applied to x_1.
    Longer steps to x_0, from t > 1, are unchanged.
    """
    unclipped = parameterization.unclipped_rules
    return dataclasses.replace(
        parameterization,
        process=process,
        rules=_fixed_last(parameterization.rules),
        name=f"fixed_last({parameterization.name})",
        unclipped_rules=unclipped and _fixed_last(unclipped),
    )


@lru_cache
def _fixed_last(rules: Rules) -> Rules:
    def elsewhere(process, t):
        # at t = 1 the learned kernel is not used: it is evaluated at t = 2 instead, where its gradient is finite
        return jnp.where(jnp.asarray(t) == 1, min(2, process.schedule.num_steps), t)

    def choose(t, x_t, fixed, learned):
        last = at_data(jnp.asarray(t) - 1, x_t.ndim)
        return jax.tree.map(lambda x, y: jnp.where(last, x, y), fixed, learned)

    def kernel(process, output, x_t, t, s):
        other = elsewhere(process, t)
        learned = rules.kernel(process, output, x_t, other, jnp.where(other == t, s, other - 1))
        return choose(t, x_t, process.transition(x_t, 0, 1), learned)

    def x_0(process, output, x_t, t):
        learned = rules.x_0(process, output, x_t, elsewhere(process, t))
        return choose(t, x_t, expectation(process.transition(x_t, 0, 1)), learned)

    return Rules(rules.error, x_0, kernel)
