"""Gaussian diffusion: each step scales x_t down and adds noise (2015: Table App. 1; Ho et al. 2020: Eq. 2)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Family, Process

LogLikelihood = Callable[[Any, Array], Array]
"""``log_likelihood(dist, x_0)`` -> log p(x_0 | x_1) in nats, element by element; `dist` is p(x_0 | x_1), a Normal."""


def q_sample(
    schedule: Schedule, x_0: Float[Array, "*shape"], t: ArrayLike, noise: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The sample of q(x_t | x_0) that the given standard normal `noise` produces (Ho et al. 2020, Eq. 4).

        x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise

    t is 0 or in [1, T]: a scalar, or one per example, [batch].
    """
    return transition(schedule, x_0, 0, t).push(noise)


def transition(schedule: Schedule, x_s: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike) -> Normal:
    """q(x_t | x_s) for s < t (Ho et al. 2020, Eqs. 2 and 4).

        q(x_t | x_s) = N(sqrt(alpha) x_s, 1 - alpha),    alpha = alpha_bar_t / alpha_bar_s

    s = 0 gives the marginal q(x_t | x_0).
    """
    alpha, beta = schedule.between(s, t, x_s.ndim)
    return Normal(jnp.sqrt(alpha) * x_s, beta)


def posterior(
    schedule: Schedule,
    x_t: Float[Array, "*shape"],
    x_0: Float[Array, "*shape"],
    t: ArrayLike,
    s: ArrayLike,
    eta: ArrayLike = 1.0,
) -> Normal:
    """q(x_s | x_t, x_0) for s < t (Ho et al. 2020, Eqs. 6-7 for s = t - 1; Song et al. 2021, Eq. 7 for any eta).

        eps      = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t)
        mean     = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - sigma^2) eps
        variance = sigma^2 = eta^2 (1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_s)

    eta = 1 gives the posterior of the Markov chain, eta = 0 a deterministic step. The marginals q(x_s | x_0) are the
    same for every eta in [0, 1].
    """
    alpha_bar_s, one_minus_s = schedule.at(s, x_t.ndim)
    _, one_minus_t = schedule.at(t, x_t.ndim)
    alpha, beta = schedule.between(s, t, x_t.ndim)
    ratio = one_minus_s / one_minus_t
    # 1 - alpha_bar_s - sigma^2, written without a difference of close numbers
    kept = ratio * (alpha * one_minus_s + (1 - jnp.square(eta)) * beta)
    weight_t = jnp.sqrt(kept / one_minus_t)
    weight_0 = jnp.sqrt(alpha_bar_s) * (1 - jnp.sqrt(alpha) * weight_t)
    return Normal(weight_0 * x_0 + weight_t * x_t, jnp.square(eta) * ratio * beta)


def posterior_variance(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    """The variance of q(x_s | x_t, x_0), the same for all x_t and x_0 (Ho et al. 2020, Eq. 7: beta tilde).

    Has the shape of t and s, with trailing axes of size one up to `ndim`.
    """
    _, one_minus_s = schedule.at(s, ndim)
    _, one_minus_t = schedule.at(t, ndim)
    return one_minus_s / one_minus_t * schedule.between(s, t, ndim)[1]


def prior(shape: tuple[int, ...]) -> Normal:
    """The prior pi(x_T): the standard normal distribution, for arrays of this shape."""
    return Normal(jnp.zeros(shape), jnp.ones((1,) * len(shape)))


def density(dist: Normal, x_0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The log density log p(x_0 | x_1) of continuous data under `dist` = p(x_0 | x_1), in nats, element by element."""
    return dist.log_prob(x_0)


def erf_interval(lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log(Phi(upper) - Phi(lower)) for lower < upper, where Phi is the cumulative standard normal distribution.

    Accurate in both tails.
    """
    # an interval above 0 is mirrored into the left tail, where Phi is small and its logarithm accurate
    flip = lower > 0
    low, high = jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)
    endless = jnp.isneginf(low)  # where the slope of log_ndtr is NaN, which forward differentiation would keep
    log_low, log_high = jnp.where(endless, -jnp.inf, log_ndtr(jnp.where(endless, 0.0, low))), log_ndtr(high)
    return log_high + jnp.log(-jnp.expm1(log_low - log_high))


def tanh_interval(lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`erf_interval` with the approximations of the released code of Ho et al. 2020, for comparison with its numbers.

    Phi is approximated by a tanh, with an error of up to 1.8e-4. A probability below 1e-12 is replaced by 1e-12.
    """
    return jnp.log(jnp.maximum(_tanh_cdf(upper) - _tanh_cdf(lower), 1e-12))


def _tanh_cdf(x: Array) -> Array:
    return 0.5 * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))


class Discretized(NamedTuple):
    """The log-likelihood of data that take `levels` evenly spaced values in [-1, 1] (Ho et al. 2020, Eq. 13).

        log p(x_0 | x_1) = log(Phi((x_0 + h - mean) / std) - Phi((x_0 - h - mean) / std)),    h = 1 / (levels - 1)

    A function of `dist` = p(x_0 | x_1) and x_0; nats, element by element. The outermost bins extend to infinity, so the
    probabilities of all levels sum to one.
    """

    levels: int
    interval: Callable[[Array, Array], Array]
    """``interval(lower, upper)`` -> log(Phi(upper) - Phi(lower)): `erf_interval` or `tanh_interval`."""

    def __call__(self, dist: Normal, x_0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """log p(x_0 | x_1) in nats, element by element."""
        scale, half = jax.lax.rsqrt(dist.variance), 1 / (self.levels - 1)
        lower = jnp.where(x_0 < -1 + half, -jnp.inf, (x_0 - half - dist.mean) * scale)
        upper = jnp.where(x_0 > 1 - half, jnp.inf, (x_0 + half - dist.mean) * scale)
        return self.interval(lower, upper)


def discretized(levels: int = 256, interval: Callable[[Array, Array], Array] = erf_interval) -> Discretized:
    """The log-likelihood of data that take `levels` values, such as 256 for uint8 images: see `Discretized`.

    Raises ValueError for fewer than 2 levels.
    """
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    return Discretized(levels, interval)


def process(schedule: Schedule, log_likelihood: LogLikelihood | None = None) -> Process:
    """The Gaussian diffusion process with this schedule.

    `log_likelihood` evaluates the decoder log p(x_0 | x_1): by default ``discretized(256)``, for uint8 images scaled to
    [-1, 1]; use `density` for continuous data.
    """
    return Process(schedule, Family("gaussian", prior, transition, posterior, log_likelihood or discretized()))
