"""Parameterizations of Gaussian processes: the network predicts the noise, the image, v or the posterior mean."""

import dataclasses
from collections.abc import Callable
from functools import lru_cache

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.gaussian import q_sample
from ddpm_jax.diffusion.parameterizations.kernels import posterior_kernel
from ddpm_jax.diffusion.parameterizations.variances import fixed_small
from ddpm_jax.diffusion.types import Parameterization, Process, Rules, Variance


def eps(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The network predicts the noise (Ho et al. 2020, Eqs. 12 and 15).

        x_0 = (x_t - sqrt(1 - alpha_bar_t) output) / sqrt(alpha_bar_t)

    The target of the training error is the noise eps. Undefined where alpha_bar_t = 0.
    """
    return Parameterization(process, _of_target(_noise, _x_0_of_noise, variance), "eps", variance)


def x0(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The network predicts x_0 itself, which is also the target of the training error (Ho et al. 2020, Section 3.2)."""
    return Parameterization(process, _of_target(_image, _x_0_of_image, variance), "x0", variance)


def v(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The network predicts v (Salimans & Ho 2022, Section 4).

        v   = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0
        x_0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) output

    Defined also where alpha_bar_t = 0.
    """
    return Parameterization(process, _of_target(_v, _x_0_of_v, variance), "v", variance)


def mean(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The network predicts mu tilde, the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, Eqs. 7-8 and Table 2).

        x_0 = (output - weight_t x_t) / weight_0,    where mu tilde = weight_0 x_0 + weight_t x_t

    Undefined where alpha_bar_{t-1} = 0, and for real t between 1 and 2, since schedules are undefined between 0 and 1.
    """
    return Parameterization(process, _of_target(_mean, x_0_of_mean, variance), "mean", variance)


def clipped(
    process: Process, parameterization: Parameterization, low: float = -1.0, high: float = 1.0
) -> Parameterization:
    """The parameterization with its estimate of x_0 clipped to [low, high], the range of the data.

    As in the released code of Ho et al. 2020. The mean of the kernel is computed from the clipped x_0; the variance of
    the kernel and the training error are unchanged. If `parameterization` clips already, this range replaces its own.
    """
    unclipped = parameterization.unclipped().rules
    rules = _clipped(unclipped, low, high)
    return dataclasses.replace(
        parameterization, process=process, rules=rules, clip=(low, high), unclipped_rules=unclipped
    )


def thresholded(process: Process, parameterization: Parameterization, quantile: ArrayLike) -> Parameterization:
    """The parameterization with dynamic thresholding of its estimate of x_0 (Saharia et al. 2022, Section 2.3).

        s = max(quantile of |x_0| over the elements of an image, 1),    x_0 <- clip(x_0, -s, s) / s

    For data in [-1, 1], against saturated pixels under strong guidance. `quantile` lies in (0, 1]; 0.995 is usual, and
    1 scales all of the image. If `parameterization` clips, this replaces its clipping. Each call makes new rules: call
    it within a jitted function, where `quantile` may be traced. Raises ValueError for a binomial process.
    """
    process.require_gaussian("dynamic thresholding")
    unclipped = parameterization.unclipped().rules

    def limit(x_0: Array) -> Array:
        reach = jnp.quantile(jnp.abs(x_0), quantile, axis=tuple(range(1, x_0.ndim)), keepdims=True)
        reach = jnp.maximum(reach, 1.0)
        return jnp.clip(x_0, -reach, reach) / reach

    rules = _limited(unclipped, limit)
    return dataclasses.replace(parameterization, process=process, rules=rules, clip=None, unclipped_rules=unclipped)


@lru_cache
def _clipped(rules: Rules, low: float, high: float) -> Rules:
    return _limited(rules, lambda x_0: jnp.clip(x_0, low, high))


def _limited(rules: Rules, limit: Callable[[Array], Array]) -> Rules:
    """The rules with ``limit(estimate of x_0)``; the mean of the kernel is computed from it."""

    def x_0(process, output, x_t, t):
        return limit(rules.x_0(process, output, x_t, t))

    def variance(process, output, x_t, t, s):
        return rules.kernel(process, output, x_t, t, s).variance

    return Rules(rules.error, x_0, posterior_kernel(x_0, variance))


@lru_cache
def _of_target(target: Callable, x_0: Callable, variance: Variance) -> Rules:
    """The rules of a network whose training error is the squared distance of its output to a target."""

    def error(process, output, clean, noise, t):
        return jnp.square(output - target(process, clean, noise, t))

    def fixed(process, output, x_t, t, s):
        return variance(process.schedule, t, s, x_t.ndim)

    return Rules(error, x_0, posterior_kernel(x_0, fixed))


def _noise(process, clean, noise, t):
    return noise


def _x_0_of_noise(process, output, x_t, t):
    alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
    return (x_t - jnp.sqrt(one_minus) * output) / jnp.sqrt(alpha_bar)


def _image(process, clean, noise, t):
    return clean


def _x_0_of_image(process, output, x_t, t):
    return output


def _v(process, clean, noise, t):
    alpha_bar, one_minus = process.schedule.at(t, clean.ndim)
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(one_minus) * clean


def _x_0_of_v(process, output, x_t, t):
    alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
    return jnp.sqrt(alpha_bar) * x_t - jnp.sqrt(one_minus) * output


def _mean(process, clean, noise, t):
    x_t = q_sample(process.schedule, clean, t, noise)
    return process.posterior(x_t, clean, t, t - 1).mode()


def x_0_of_mean(process: Process, mean: Array, x_t: Array, t: ArrayLike) -> Array:
    """The x_0 for which the posterior q(x_{t-1} | x_t, x_0) has the given mean."""
    # the posterior mean is linear in x_0 and x_t: its two weights are its values at (0, x_t) and at (1, 0)
    from_x_t = process.posterior(x_t, jnp.zeros_like(x_t), t, t - 1).mode()
    per_x_0 = process.posterior(jnp.zeros_like(x_t), jnp.ones_like(x_t), t, t - 1).mode()
    return (mean - from_x_t) / per_x_0
