"""Binomial diffusion: bits that are forgotten, one by one, for draws at a base rate (2015: Table App. 1).

Bits are floats, 0 or 1. The schedule says what share of the bias away from the base rate is left.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.distributions import Bernoulli
from ddpm_jax.diffusion.process import Process
from ddpm_jax.diffusion.schedules import Schedule


def transition(
    schedule: Schedule, x_s: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike, rate: float = 0.5
) -> Bernoulli:
    """q(x_t | x_s) for s < t: kept with probability alpha, else drawn at the base rate; s = 0 is the marginal.

    2015: Table App. 1, which has ``rate = 0.5``; the marginal, not written there, is of the same form.
    """
    alpha, beta = schedule.between(s, t, x_s.ndim)
    return Bernoulli(x_s * alpha + rate * beta, (1 - x_s) * alpha + (1 - rate) * beta)


def posterior(
    schedule: Schedule,
    x_t: Float[Array, "*shape"],
    x_0: Float[Array, "*shape"],
    t: ArrayLike,
    s: ArrayLike,
    eta: ArrayLike = 1.0,
    rate: float = 0.5,
) -> Bernoulli:
    """q(x_s | x_t, x_0) for s < t, by Bayes' rule; `x_0` may be a probability, in which it is linear.

    With E[x_0 | x_t] in the place of x_0 it is q(x_s | x_t). Raises ValueError for an `eta` other than 1: bits have no
    bridges here that are less random.
    """
    if not (isinstance(eta, float | int) and eta == 1):
        raise ValueError("bits have no DDIM: leave eta out")
    given_one = _posterior_of_bit(schedule, x_t, jnp.ones_like(x_t), t, s, rate)
    given_zero = _posterior_of_bit(schedule, x_t, jnp.zeros_like(x_t), t, s, rate)
    return Bernoulli(*(x_0 * one + (1 - x_0) * zero for one, zero in zip(given_one, given_zero, strict=True)))


def _posterior_of_bit(schedule: Schedule, x_t: Array, x_0: Array, t: ArrayLike, s: ArrayLike, rate: float) -> Bernoulli:
    before = transition(schedule, x_0, 0, s, rate)
    from_one = transition(schedule, jnp.ones_like(x_t), s, t, rate)
    from_zero = transition(schedule, jnp.zeros_like(x_t), s, t, rate)
    one = before.one * jnp.where(x_t > 0.5, from_one.one, from_one.zero)
    zero = before.zero * jnp.where(x_t > 0.5, from_zero.one, from_zero.zero)
    return Bernoulli(one / (one + zero), zero / (one + zero))


def prior(shape: tuple[int, ...], rate: float = 0.5) -> Bernoulli:
    """pi(x_T): every bit is one with probability `rate`."""
    return Bernoulli(jnp.full(shape, rate), jnp.full(shape, 1 - rate))


def log_likelihood(dist: Any, x_0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x_0), nats a bit."""
    return dist.log_prob(x_0)


def process(schedule: Schedule, rate: float = 0.5) -> Process:
    """Binomial diffusion over `schedule` towards bits that are one with probability `rate`, in (0, 1)."""
    if not 0 < rate < 1:
        raise ValueError(f"the base rate must lie in (0, 1), got {rate}")
    return Process(
        schedule=schedule,
        prior=partial(prior, rate=rate),
        transition=partial(transition, schedule, rate=rate),
        posterior=partial(posterior, schedule, rate=rate),
        log_likelihood=log_likelihood,
        low=0.0,
    )
