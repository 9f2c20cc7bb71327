"""The variance of the kernel p(x_s | x_t): fixed, measured on data, or learned by the network."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.gaussian import posterior_variance
from ddpm_jax.diffusion.parameterizations.kernels import at_data, posterior_kernel
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Parameterization, Process, Rules, Variance


def fixed_small(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    """beta tilde, the variance of q(x_s | x_t, x_0) (Ho et al. 2020, Section 3.2).

        (1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_s)

    Optimal for data at a single point. At s = 0 the formula is zero. There this is, for t = 1, its value for t = 2 and
    s = 1, as in the released code of Ho et al. 2020, and for t > 1 beta = 1 - alpha_bar_t. With T = 1 it is beta.

    The result has the shape of t and s, with trailing axes of size one up to `ndim`.
    """
    beta = schedule.between(s, t, ndim)[1]
    if schedule.num_steps == 1:
        return beta
    reached = jnp.asarray(s) == 0
    small = posterior_variance(schedule, jnp.where(reached, 2, t), jnp.where(reached, 1, s), ndim)
    return jnp.where(at_data(s, ndim) & ~at_data(jnp.asarray(t) - 1, ndim), beta, small)


def fixed_large(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    """beta, the variance of the forward step (Ho et al. 2020, Section 3.2).

        1 - alpha_bar_t / alpha_bar_s

    Optimal for data of unit variance. From t = 1 to s = 0 this is the value of `fixed_small`, as in the released code
    of Ho et al. 2020, which gives the reason "a better decoder log likelihood".

    The result has the shape of t and s, with trailing axes of size one up to `ndim`.
    """
    beta = schedule.between(s, t, ndim)[1]
    return jnp.where(at_data(s, ndim), fixed_small(schedule, t, s, ndim), beta)


def analytic(errors: Float[ArrayLike, " times"]) -> Variance:
    """The best variance that is the same for all elements and all x_t, from measured errors (Bao et al. 2022, Eq. 7).

        variance = beta_tilde + (sqrt(alpha_bar_s) beta / (1 - alpha_bar_t))^2 errors_t
        beta     = 1 - alpha_bar_t / alpha_bar_s,    beta_tilde = (1 - alpha_bar_s) / (1 - alpha_bar_t) beta

    ``errors[t]`` is E (x_0 - estimate of x_0)^2 per element at t, and 0 at t = 0; between integers it is interpolated.
    No other variance that all elements and all x_t share makes a KL divergence of the bound smaller. For the best
    predictor of the noise, eps, Bao et al. measure the same quantity as (1 - alpha_bar_t) / alpha_bar_t (1 - E eps^2),
    which they clip to the range that data in [-1, 1] allow (their Theorem 2). The error itself needs no clipping: it is
    positive, exact for any network, and not a small difference divided by alpha_bar_t.
    """
    return Partial(_analytic, jnp.asarray(errors))


def _analytic(errors: Array, schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    alpha_bar_s, _ = schedule.at(s, ndim)
    _, one_minus_t = schedule.at(t, ndim)
    share = schedule.between(s, t, ndim)[1] / one_minus_t
    error = jnp.interp(jnp.asarray(t, one_minus_t.dtype), jnp.arange(schedule.num_steps + 1), errors)
    error = error.reshape(error.shape + (1,) * (ndim - error.ndim))
    return posterior_variance(schedule, t, s, ndim) + alpha_bar_s * jnp.square(share) * error


def with_variance(parameterization: Parameterization, variance: Variance) -> Parameterization:
    """The parameterization with this variance of the kernel, instead of its own, fixed or learned.

    For variances that are chosen after training, such as `analytic` (Bao et al. 2022). Raises ValueError unless the
    process is Gaussian.
    """
    family = parameterization.process.family.name
    if family != "gaussian":
        raise ValueError(f"the kernels of a {family} process have no variance to choose: leave --variance out")
    fixed = None if isinstance(variance, Partial) else variance
    chosen = variance if isinstance(variance, Partial) else Partial(variance)
    return dataclasses.replace(parameterization, variance=fixed, chosen_variance=chosen, single_steps=False)


def learned(process: Process, parameterization: Parameterization) -> Parameterization:
    """The parameterization with a learned variance: the network outputs twice the channels of x_t.

    The first half of the channels is the output that `parameterization` interprets, the second half is the log variance
    of the kernel: the "learned diagonal Sigma" of Ho et al. 2020, Table 2. The training error, and so `losses.simple`,
    ignores the second half: train the variance with `losses.variational`.

    The log variance is that of the step from t to t - 1. For any other step the variance of the kernel is NaN, and
    `samplers.sample` refuses the times: sample with all T steps, or with `samplers.ddim`, which ignores this variance.
    """
    made = _with_variance(process, parameterization, _own)
    return dataclasses.replace(made, single_steps=True, learned="learned")


def learned_range(process: Process, parameterization: Parameterization) -> Parameterization:
    """A learned variance between beta tilde and beta (Nichol & Dhariwal 2021, Eq. 15).

        variance = exp(v log beta + (1 - v) log beta_tilde),    v = (second half of the channels + 1) / 2

    The network outputs twice the channels of x_t; `parameterization` interprets the first half. beta and beta tilde are
    those of the step that is taken, so the variance holds for steps of any length. v is not limited to [0, 1]. Train
    it with `losses.hybrid` or `losses.variational`; `losses.simple` ignores the second half.
    """
    made = _with_variance(process, parameterization, _between)
    return dataclasses.replace(made, single_steps=False, learned="learned_range")


def _own(process: Process, second: Array, t: ArrayLike, s: ArrayLike) -> Array:
    single = at_data(jnp.asarray(t) - 1 - jnp.asarray(s), second.ndim)
    return jnp.where(single, jnp.exp(second), jnp.nan)


def _between(process: Process, second: Array, t: ArrayLike, s: ArrayLike) -> Array:
    most = jnp.log(process.schedule.between(s, t, second.ndim)[1])
    least = jnp.log(fixed_small(process.schedule, t, s, second.ndim))
    return jnp.exp(least + (second + 1) / 2 * (most - least))


def _with_variance(
    process: Process, parameterization: Parameterization, variance: Callable[..., Array]
) -> Parameterization:
    """The parameterization with ``variance(process, second half of the output, t, s)``."""
    unclipped = parameterization.unclipped_rules
    return dataclasses.replace(
        parameterization,
        process=process,
        rules=_doubled(parameterization.rules, variance),
        variance=None,
        unclipped_rules=unclipped and _doubled(unclipped, variance),
    )


@lru_cache
def _doubled(rules: Rules, variance: Callable[..., Array]) -> Rules:
    """The rules for the first half of the channels, with a variance from the second half."""

    def first(output):
        return jnp.split(output, 2, axis=-1)[0]

    def error(process, output, clean, noise, t):
        return rules.error(process, first(output), clean, noise, t)

    def x_0(process, output, x_t, t):
        return rules.x_0(process, first(output), x_t, t)

    def from_second(process, output, x_t, t, s):
        return variance(process, jnp.split(output, 2, axis=-1)[1], t, s)

    return Rules(error, x_0, posterior_kernel(x_0, from_second))
