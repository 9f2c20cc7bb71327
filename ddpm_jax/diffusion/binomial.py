"""Binomial diffusion: each step replaces randomly chosen bits by random bits (2015, Table App. 1).

2015 is Sohl-Dickstein et al. 2015. Bits are floats, 0.0 or 1.0. alpha_bar_t is the probability that a bit of x_0 has
not been replaced in steps 1..t. `rate` is the probability that a random bit is 1.
"""

from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.distributions import Bernoulli
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Family, Process


def transition(
    schedule: Schedule, x_s: Float[Array, "*shape"], s: ArrayLike, t: ArrayLike, rate: float = 0.5
) -> Bernoulli:
    """q(x_t | x_s) for s < t; s = 0 gives the marginal q(x_t | x_0).

        q(x_t = 1 | x_s) = alpha x_s + (1 - alpha) rate,    alpha = alpha_bar_t / alpha_bar_s

    2015, Table App. 1, for ``rate = 0.5``.
    """
    alpha, beta = schedule.between(s, t, x_s.ndim)
    return Bernoulli(x_s * alpha + rate * beta, (1 - x_s) * alpha + (1 - rate) * beta)


def posterior(
    schedule: Schedule,
    x_t: Float[Array, "*shape"],
    x_0: Float[Array, "*shape"] | Bernoulli,
    t: ArrayLike,
    s: ArrayLike,
    eta: ArrayLike = 1.0,
    rate: float = 0.5,
) -> Bernoulli:
    """q(x_s | x_t, x_0) for s < t, by Bayes' rule.

        q(x_s | x_t, x_0) = q(x_t | x_s) q(x_s | x_0) / q(x_t | x_0)

    The posterior is linear in x_0, so x_0 may be a probability of ones: with E[x_0 | x_t] for x_0 the result is
    q(x_s | x_t). Pass a Bernoulli for x_0 where 1 - x_0 would lose precision. Raises ValueError unless `eta` is 1,
    since DDIM is not implemented for bits.
    """
    if not (isinstance(eta, float | int) and eta == 1):
        raise ValueError("a binomial process has no DDIM: use the sampler ancestral, without eta")
    belief = x_0 if isinstance(x_0, Bernoulli) else Bernoulli(x_0, 1 - x_0)
    given_one = _posterior_of_bit(schedule, x_t, jnp.ones_like(x_t), t, s, rate)
    given_zero = _posterior_of_bit(schedule, x_t, jnp.zeros_like(x_t), t, s, rate)
    one, zero = (belief.one * x + belief.zero * y for x, y in zip(given_one, given_zero, strict=True))
    return Bernoulli(one, zero)


def _posterior_of_bit(schedule: Schedule, x_t: Array, x_0: Array, t: ArrayLike, s: ArrayLike, rate: float) -> Bernoulli:
    before = transition(schedule, x_0, 0, s, rate)
    from_one = transition(schedule, jnp.ones_like(x_t), s, t, rate)
    from_zero = transition(schedule, jnp.zeros_like(x_t), s, t, rate)
    one = before.one * jnp.where(x_t > 0.5, from_one.one, from_one.zero)
    zero = before.zero * jnp.where(x_t > 0.5, from_zero.one, from_zero.zero)
    return Bernoulli(one / (one + zero), zero / (one + zero))


def prior(shape: tuple[int, ...], rate: float = 0.5) -> Bernoulli:
    """The prior pi(x_T): each bit is 1 with probability `rate`, independently."""
    return Bernoulli(jnp.full(shape, rate), jnp.full(shape, 1 - rate))


def log_likelihood(dist: Any, x_0: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """log p(x_0 | x_1) under `dist` = p(x_0 | x_1), in nats, bit by bit."""
    return dist.log_prob(x_0)


def process(schedule: Schedule, rate: float = 0.5) -> Process:
    """The binomial process with this schedule, in which random bits are 1 with probability `rate`.

    Raises ValueError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"the base rate must lie in (0, 1), got {rate}")
    return Process(schedule, _family(rate))


@lru_cache  # equal rates give the same functions: a jitted function with a process as argument is compiled once
def _family(rate: float) -> Family:
    return Family(
        name="binomial",
        prior=partial(prior, rate=rate),
        transition=partial(transition, rate=rate),
        posterior=partial(posterior, rate=rate),
        log_likelihood=log_likelihood,
        low=0.0,
        rate=rate,
    )
