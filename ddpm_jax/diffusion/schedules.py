"""Noise schedules: what share of the data is left after t steps, for t = 0 (the data itself) to t = T.

Every function here works in float64 on the host and casts once, at the end, so that neither ``alpha_bar`` nor
``1 - alpha_bar`` carries the rounding of a long product in float32.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from numpy.typing import DTypeLike


class Schedule(NamedTuple):
    """``alpha_bar[t] = prod_{i <= t} (1 - beta_i)`` and one minus it, indexed 0..T: ``alpha_bar[0] = 1`` is the data.

    Any pair s < t describes a step, so a strided sampler needs no schedule of its own.
    """

    alpha_bar: Float[Array | np.ndarray, " T+1"]
    one_minus_alpha_bar: Float[Array | np.ndarray, " T+1"]

    @property
    def num_steps(self) -> int:
        """T, the number of forward steps."""
        return self.alpha_bar.shape[0] - 1

    def at(self, t: ArrayLike, ndim: int) -> tuple[Array, Array]:
        """``(alpha_bar_t, 1 - alpha_bar_t)``, with trailing axes of size one up to `ndim`. NaN where t is above T."""
        return _pick(self.alpha_bar, t, ndim), _pick(self.one_minus_alpha_bar, t, ndim)

    def between(self, s: ArrayLike, t: ArrayLike, ndim: int) -> tuple[Array, Array]:
        """``(alpha_bar_t / alpha_bar_s, 1 - alpha_bar_t / alpha_bar_s)`` of the step from s to t, for 0 <= s < t <= T.

        The second number is beta_t when s = t - 1. It is a difference of the two tables, taken from the one whose
        entries are the smaller, where float32 loses least.
        """
        alpha_bar_s, one_minus_s = self.at(s, ndim)
        alpha_bar_t, one_minus_t = self.at(t, ndim)
        lost = jnp.where(alpha_bar_s < 0.5, alpha_bar_s - alpha_bar_t, one_minus_t - one_minus_s)
        return alpha_bar_t / alpha_bar_s, lost / alpha_bar_s


def _pick(table: Array | np.ndarray, t: ArrayLike, ndim: int) -> Array:
    values = jnp.asarray(table).at[jnp.asarray(t)].get(mode="fill", fill_value=jnp.nan)
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))


def from_betas(betas: Sequence[float] | np.ndarray, dtype: DTypeLike = np.float32) -> Schedule:
    """The schedule of forward variances ``beta_1 .. beta_T``, each in (0, 1] (2020: Eq. 2; 2015: Table App. 1).

    Raises ValueError if a beta lies outside (0, 1], or if alpha_bar is too small for `dtype` before the last step: the
    steps after that could not be told from the table.
    """
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"betas must be a non-empty vector, got an array of shape {values.shape}")
    if (outside := values[~((values > 0) & (values <= 1))]).size:
        raise ValueError(f"betas must lie in (0, 1], got {outside}")
    with np.errstate(divide="ignore"):  # beta_T = 1 is allowed: log 0 = -inf forgets the data entirely
        log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-values))])
    if (lost := np.flatnonzero(np.exp(log_alpha_bar[:-1]) < np.finfo(dtype).tiny)).size:
        raise ValueError(f"nothing is left of the data at t = {lost[0]} of {values.size}: the betas are too large")
    # abs, since -expm1(0.0) is -0.0 and one over it would be -inf
    return Schedule(np.exp(log_alpha_bar).astype(dtype), np.abs(np.expm1(log_alpha_bar)).astype(dtype))


def of_betas(betas: Float[Array, " T"]) -> Schedule:
    """`from_betas` for betas in (0, 1) that are traced, and may be differentiated: in float32, on the device."""
    log_alpha_bar = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.log1p(-betas))])
    return Schedule(jnp.exp(log_alpha_bar), jnp.abs(jnp.expm1(log_alpha_bar)))


def linear(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas in a straight line (Ho et al. 2020, Section 4, for T = 1000).

    Nichol & Dhariwal 2021 scale both ends by 1000 / T: `linear_scaled`.
    """
    return from_betas(np.linspace(beta_1, beta_T, num_steps), dtype)


def linear_scaled(num_steps: int, dtype: DTypeLike = np.float32) -> Schedule:
    """The betas of Ho et al. 2020 times 1000 / T, so that any T ends in about the same noise (Nichol & Dhariwal 2021).

    Raises ValueError for T < 21, where the last beta would be one or more: nothing of x_0 could be read from eps.
    """
    if num_steps < 21:
        raise ValueError(f"timesteps must be at least 21, got {num_steps}: the last beta is 20 / timesteps")
    return linear(num_steps, 0.1 / num_steps, 20 / num_steps, dtype)


def quadratic(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas whose square roots lie on a straight line (the schedule sweep of Ho et al. 2020)."""
    return from_betas(np.linspace(beta_1**0.5, beta_T**0.5, num_steps) ** 2, dtype)


def constant(num_steps: int, beta: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """The same beta at each step (the schedule sweep of Ho et al. 2020)."""
    return from_betas(np.full(num_steps, beta), dtype)


def warmup(
    num_steps: int, fraction: float = 0.1, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32
) -> Schedule:
    """A straight line over the first `fraction` of the steps, then beta_T (Ho et al. 2020's sweep: 0.1 and 0.5)."""
    betas = np.full(num_steps, beta_T)
    rising = int(num_steps * fraction)
    betas[:rising] = np.linspace(beta_1, beta_T, rising)
    return from_betas(betas, dtype)


def steady(num_steps: int, dtype: DTypeLike = np.float32) -> Schedule:
    """``beta_t = 1 / (T - t + 1)``: each step forgets an equal share, ``alpha_bar_t = 1 - t / T`` exactly.

    Sohl-Dickstein et al. 2015, Section 2.4.1 (binomial). Nothing is left at t = T, where x_0 cannot be read from eps.
    """
    if num_steps < 1:
        raise ValueError(f"timesteps must be at least 1, got {num_steps}")
    left = np.arange(num_steps, -1, -1) / num_steps
    return Schedule(left.astype(dtype), (np.arange(num_steps + 1) / num_steps).astype(dtype))


jsd = steady  # the name of the same betas, 1/T, 1/(T-1), ..., 1, in the sweep of Ho et al. 2020


def cosine(num_steps: int, offset: float = 0.008, max_beta: float = 0.999, dtype: DTypeLike = np.float32) -> Schedule:
    """``alpha_bar`` follows ``cos^2``, each beta at most `max_beta` (Nichol & Dhariwal 2021, Eq. 17)."""
    angle = (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset) * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta), dtype)


def sigmoid(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas between the two along a logistic curve from -6 to 6 (the "sigmoid" of diffusers' schedulers)."""
    return from_betas(beta_1 + (beta_T - beta_1) / (1 + np.exp(-np.linspace(-6, 6, num_steps))), dtype)


def signal_to_noise(schedule: Schedule, t: Int[Array, "..."]) -> Float[Array, "..."]:
    """``alpha_bar_t / (1 - alpha_bar_t)``; infinite at t = 0."""
    alpha_bar, one_minus = schedule.at(t, jnp.ndim(t))
    return alpha_bar / one_minus
