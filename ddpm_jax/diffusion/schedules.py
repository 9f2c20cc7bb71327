"""Noise schedules: the signal share alpha_bar_t and the noise share 1 - alpha_bar_t, from t = 0 (the data) to t = T.

The tables are computed in float64 on the host and rounded once at the end, except by `from_traced_betas`. So neither
``alpha_bar`` nor ``1 - alpha_bar`` has the rounding errors of a long product in float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from numpy.typing import DTypeLike


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)  # arrays have no truth value: a schedule is equal to itself only
class Schedule:
    """A noise schedule as tables of length T + 1, indexed by t = 0..T; ``alpha_bar[0] = 1`` is the data.

        alpha_bar_t = prod_{i <= t} (1 - beta_i)        (Ho et al. 2020, Eq. 4)

    Any pair s < t is a step, so a sampler that skips steps needs no schedule of its own. A Schedule is a pytree: it can
    be an argument of a jitted function, which is compiled once for all schedules of the same name and length. Make one
    with `linear`, `cosine`, `from_betas` or another function of this module.
    """

    alpha_bar: Any
    """[T + 1], float, in [0, 1]."""
    one_minus_alpha_bar: Any
    """[T + 1], float: 1 - alpha_bar, accurate also where alpha_bar is close to 1."""
    log_alpha_bar: Any
    """[T + 1], float: log(alpha_bar), rounded."""
    log_alpha_bar_rest: Any
    """[T + 1], float: the rounding error, log(alpha_bar) - log_alpha_bar. It keeps small differences accurate."""
    name: str = field(default="betas", metadata={"static": True})
    """The name of the function that made the schedule, such as "linear"; "betas" for a schedule of given betas."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of that function by name, such as beta_1 and beta_T. They are leaves of the pytree."""

    @property
    def num_steps(self) -> int:
        """T, the number of forward steps."""
        return self.alpha_bar.shape[0] - 1

    def at(self, t: ArrayLike, ndim: int) -> tuple[Array, Array]:
        """``(alpha_bar_t, 1 - alpha_bar_t)``, with trailing axes of size one up to `ndim`.

        t is 0 or in [1, T], integer or real, a scalar or one per example, [batch]. The values at integers are those of
        the tables; between integers the log signal-to-noise ratio log(alpha_bar / (1 - alpha_bar)) is linear in t. Any
        other t gives NaN.
        """
        alpha_bar, one_minus, _, _ = _look_up(self, t)
        return _with_axes(alpha_bar, ndim), _with_axes(one_minus, ndim)

    def between(self, s: ArrayLike, t: ArrayLike, ndim: int) -> tuple[Array, Array]:
        """``(alpha, beta)`` of the step from s to t, for 0 <= s < t <= T; the shapes of both and the times as in `at`.

            alpha = alpha_bar_t / alpha_bar_s,    beta = 1 - alpha

        For s = t - 1, beta is the beta_t of the papers; its relative error in float32 is below 1e-6 up to T = 100,000.
        Where alpha_bar_s = 0, alpha is 1 and beta is 0.
        """
        alpha_bar_s, _, log_s, rest_s = (_with_axes(value, ndim) for value in _look_up(self, s))
        alpha_bar_t, one_minus_t, log_t, rest_t = (_with_axes(value, ndim) for value in _look_up(self, t))
        beta = -jnp.expm1((log_t - log_s) + (rest_t - rest_s))
        beta = jnp.where(_with_axes(jnp.asarray(s) == 0, ndim), one_minus_t, beta)
        nothing_left = alpha_bar_s == 0
        return jnp.where(nothing_left, 1.0, alpha_bar_t / alpha_bar_s), jnp.where(nothing_left, 0.0, beta)

    def time_of(self, log_ratio: ArrayLike) -> Array:
        """The real time t in [1, T] whose log(alpha_bar_t / (1 - alpha_bar_t)) this is; the nearest end outside."""
        alpha_bar, one_minus = jnp.asarray(self.alpha_bar)[1:], jnp.asarray(self.one_minus_alpha_bar)[1:]
        ratios = jnp.log(alpha_bar) - jnp.log(one_minus)
        times = jnp.arange(self.num_steps, 0, -1, dtype=ratios.dtype)
        return jnp.interp(jnp.asarray(log_ratio, ratios.dtype), ratios[::-1], times)


Entries = tuple[Array, Array, Array, Array]
"""alpha_bar, 1 - alpha_bar, and the logarithm of alpha_bar as a sum of two numbers."""


def _look_up(schedule: Schedule, t: ArrayLike) -> Entries:
    if not jnp.issubdtype(jnp.result_type(t), jnp.floating):
        return _entries(schedule, t)
    below = jnp.floor(jnp.asarray(t))
    entries, share = _entries(schedule, below), jnp.asarray(t) - below
    alpha_bar, one_minus, log, rest = _interpolate(entries, _entries(schedule, below + 1), share)
    # a t of NaN has a share of NaN, so it takes the interpolated values, which are NaN
    pairs = zip(entries, (alpha_bar, one_minus, log, rest), strict=True)
    alpha_bar, one_minus, log, rest = (jnp.where(share == 0, entry, value) for entry, value in pairs)
    return alpha_bar, one_minus, log, rest


def _interpolate(start: Entries, stop: Entries, share: Array) -> Entries:
    """The entries between those of two consecutive integers, with the log signal-to-noise ratio linear in `share`.

    NaN between 0 and 1, since the ratio at 0 is infinite.
    """
    alpha_bar, one_minus, log, rest = start
    step = (stop[2] - log) + (stop[3] - rest)
    # the step of the log ratio: both terms are negative, so no digits are lost
    slope = step - jnp.log1p(-jnp.expm1(step) * alpha_bar / one_minus)
    left = alpha_bar * jnp.exp(share * slope)
    total = left + one_minus
    return left / total, one_minus / total, log, rest - jnp.log1p(one_minus * jnp.expm1(-share * slope))


def _entries(schedule: Schedule, t: ArrayLike) -> Entries:
    """The entries of the tables at integer t; NaN where t is outside 0..T."""
    index = jnp.asarray(t).astype(jnp.int32)
    index = jnp.where(index < 0, schedule.num_steps + 1, index)

    def pick(table: Any) -> Array:
        return jnp.asarray(table).at[index].get(mode="fill", fill_value=jnp.nan)

    log, rest = pick(schedule.log_alpha_bar), pick(schedule.log_alpha_bar_rest)
    return pick(schedule.alpha_bar), pick(schedule.one_minus_alpha_bar), log, rest


def _with_axes(values: Array, ndim: int) -> Array:
    return values.reshape(values.shape + (1,) * (ndim - values.ndim))


def _tables(
    log_alpha_bar: np.ndarray,
    dtype: DTypeLike,
    name: str,
    numbers: Mapping[str, float],
    exact: tuple[np.ndarray, np.ndarray] | None = None,
) -> Schedule:
    """The schedule with this float64 log(alpha_bar); `exact` is (alpha_bar, 1 - alpha_bar) where known exactly."""
    # abs, since -expm1(0.0) is -0.0 and one over it would be -inf
    alpha_bar, lost = exact or (np.exp(log_alpha_bar), np.abs(np.expm1(log_alpha_bar)))
    rounded = log_alpha_bar.astype(dtype)
    with np.errstate(invalid="ignore"):  # -inf less -inf: the logarithm of 0 has no rest
        rest = np.nan_to_num(log_alpha_bar - rounded).astype(dtype)
    return Schedule(alpha_bar.astype(dtype), lost.astype(dtype), rounded, rest, name, numbers)


def from_betas(
    betas: Sequence[float] | np.ndarray, dtype: DTypeLike = np.float32, name: str = "betas", **numbers: float
) -> Schedule:
    """The schedule of the forward variances ``beta_1 .. beta_T``, [T], each in (0, 1] (Ho et al. 2020, Eq. 2).

    `name` and `numbers` are stored in the schedule. Raises ValueError if `betas` is not a non-empty vector, if a beta
    lies outside (0, 1], or if alpha_bar underflows in `dtype` before the last step.
    """
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"betas must be a non-empty vector, got an array of shape {values.shape}")
    if (outside := np.flatnonzero(~((values > 0) & (values <= 1)))).size:
        raise ValueError(f"betas must lie in (0, 1], got {values[outside[0]]:g} at t = {outside[0] + 1}")
    with np.errstate(divide="ignore"):  # beta_T = 1 is allowed: its logarithm is -inf
        log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-values))])
    if (lost := np.flatnonzero(np.exp(log_alpha_bar[:-1]) < np.finfo(dtype).tiny)).size:
        raise ValueError(f"alpha_bar underflows at t = {lost[0]} of {values.size}: the betas are too large")
    return _tables(log_alpha_bar, dtype, name, numbers)


def from_traced_betas(betas: Float[Array, " T"]) -> Schedule:
    """The schedule of betas that are JAX arrays in (0, 1): differentiable, and computed in float32 on the device.

    Use it for trained betas, and `from_betas`, which is more accurate, for constant ones. The betas are not checked.
    """
    log_alpha_bar = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.log1p(-betas))])
    lost = jnp.abs(jnp.expm1(log_alpha_bar))
    return Schedule(jnp.exp(log_alpha_bar), lost, log_alpha_bar, jnp.zeros_like(log_alpha_bar))


def _evenly(start: float, stop: float, num_steps: int) -> np.ndarray:
    """``num_steps`` numbers evenly spaced from start to stop. Raises ValueError for fewer than one."""
    _check_num_steps(num_steps)
    return np.linspace(start, stop, num_steps)


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"timesteps must be at least 1, got {num_steps}")


def linear(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas evenly spaced from beta_1 to beta_T (Ho et al. 2020, Section 4, with T = 1000).

    `num_steps` is T. The default betas are for T = 1000; for another T see `linear_scaled`.
    """
    return from_betas(_evenly(beta_1, beta_T, num_steps), dtype, "linear", beta_1=beta_1, beta_T=beta_T)


def linear_scaled(num_steps: int, dtype: DTypeLike = np.float32) -> Schedule:
    """`linear` with both betas of Ho et al. 2020 multiplied by 1000 / T, so that alpha_bar_T hardly depends on T.

    Nichol & Dhariwal 2021, released code. Raises ValueError for T < 21, where beta_T would be 1 or more, and x_0 could
    not be computed from x_T and eps.
    """
    if num_steps < 21:
        raise ValueError(f"timesteps must be at least 21, got {num_steps}: the last beta is 20 / timesteps")
    return linear(num_steps, 0.1 / num_steps, 20 / num_steps, dtype)


def quadratic(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas whose square roots are evenly spaced (Ho et al. 2020, released code).

    Raises ValueError if beta_1 or beta_T is negative.
    """
    if min(beta_1, beta_T) < 0:
        raise ValueError(f"beta_1 and beta_T must be positive, got {beta_1:g} and {beta_T:g}")
    betas = _evenly(beta_1**0.5, beta_T**0.5, num_steps) ** 2
    return from_betas(betas, dtype, "quadratic", beta_1=beta_1, beta_T=beta_T)


def constant(num_steps: int, beta: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """The same beta at each step (Ho et al. 2020, released code)."""
    return from_betas(_evenly(beta, beta, num_steps), dtype, "constant", beta=beta)


def warmup(
    num_steps: int, fraction: float = 0.1, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32
) -> Schedule:
    """Betas that rise evenly from beta_1 to beta_T over the first `fraction` of the steps, and stay at beta_T.

    Ho et al. 2020, released code. Raises ValueError for a fraction outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must lie in [0, 1], got {fraction}")
    betas = _evenly(beta_T, beta_T, num_steps)
    rising = int(num_steps * fraction)
    betas[:rising] = np.linspace(beta_1, beta_T, rising)
    return from_betas(betas, dtype, "warmup", fraction=fraction, beta_1=beta_1, beta_T=beta_T)


def steady(num_steps: int, dtype: DTypeLike = np.float32) -> Schedule:
    """``beta_t = 1 / (T - t + 1)``, so that ``alpha_bar_t = 1 - t / T`` exactly (2015, Section 2.4.1, binomial).

    The released code of Ho et al. 2020 calls it "jsd". alpha_bar_T is 0, so x_0 cannot be computed from x_T and eps.
    Raises ValueError for T < 1.
    """
    _check_num_steps(num_steps)
    left = np.arange(num_steps, -1, -1) / num_steps
    with np.errstate(divide="ignore"):
        return _tables(np.log(left), dtype, "steady", {}, (left, np.arange(num_steps + 1) / num_steps))


def cosine(num_steps: int, offset: float = 0.008, max_beta: float = 0.999, dtype: DTypeLike = np.float32) -> Schedule:
    """The schedule with alpha_bar a squared cosine (Nichol & Dhariwal 2021, Eq. 17).

        alpha_bar_t = f(t) / f(0),    f(t) = cos^2((t / T + offset) / (1 + offset) * pi / 2)

    Betas are at most `max_beta`.
    """
    _check_num_steps(num_steps)
    angle = (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset) * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)
    return from_betas(betas, dtype, "cosine", offset=offset, max_beta=max_beta)


def sigmoid(num_steps: int, beta_1: float = 1e-4, beta_T: float = 0.02, dtype: DTypeLike = np.float32) -> Schedule:
    """Betas that rise along a sigmoid, from about beta_1 to about beta_T.

        beta_t = beta_1 + (beta_T - beta_1) sigmoid(z_t),    z_t evenly spaced from -6 to 6

    It is ``beta_schedule="sigmoid"`` of diffusers.
    """
    betas = beta_1 + (beta_T - beta_1) / (1 + np.exp(-_evenly(-6.0, 6.0, num_steps)))
    return from_betas(betas, dtype, "sigmoid", beta_1=beta_1, beta_T=beta_T)


def signal_to_noise(schedule: Schedule, t: ArrayLike) -> Float[Array, "..."]:
    """The signal-to-noise ratio ``alpha_bar_t / (1 - alpha_bar_t)``, of the shape of `t`; infinite at t = 0."""
    alpha_bar, one_minus = schedule.at(t, jnp.ndim(t))
    return alpha_bar / one_minus
