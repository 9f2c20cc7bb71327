"""DPM-Solver++: multistep and singlestep solvers in the log signal-to-noise ratio (Lu et al. 2022b)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler


class Noise(NamedTuple):
    """alpha = sqrt(alpha_bar), sigma = sqrt(1 - alpha_bar) and lambda = log(alpha / sigma) at one time.

    At t = 0 lambda is infinite.
    """

    alpha: Array
    sigma: Array
    log_ratio: Array

    @staticmethod
    def at(process: Process, t: ArrayLike, ndim: int) -> "Noise":
        """The values at t, with trailing axes of size one up to `ndim`."""
        alpha_bar, one_minus = process.schedule.at(t, ndim)
        return Noise(jnp.sqrt(alpha_bar), jnp.sqrt(one_minus), 0.5 * (jnp.log(alpha_bar) - jnp.log(one_minus)))


class Estimates(NamedTuple):
    """The memory of a multistep solver: the last estimates of x_0, newest first, and the lambdas of their times."""

    x_0: tuple[Array, ...]
    log_ratio: tuple[Array, ...]
    """Infinite for an estimate that is not there yet."""

    @staticmethod
    def none(x_T: Array, count: int) -> "Estimates":
        """The memory before the first step, for this number of estimates."""
        unknown = jnp.full((1,) * x_T.ndim, jnp.inf, x_T.dtype)
        return Estimates((jnp.zeros_like(x_T),) * count, (unknown,) * count)


def multistep(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    condition: Array | None = None,
    eta: ArrayLike = 0.0,
    *,
    order: int = 2,
) -> Sampler:
    """DPM-Solver++(2M) and (3M), or with eta > 0 their SDE variants (Lu et al. 2022b, Algorithm 2 and Section 5).

        h = lambda_s - lambda_t,    r_0 = (lambda_t - lambda_r) / h,    r the time before t,    D = (x_0 - x_0') / r_0
        x_s = sigma_s / sigma_t e^(-eta h) x_t + alpha_s (1 - e^(-(1 + eta) h)) (x_0 + D / 2)
              + sigma_s sqrt(1 - e^(-2 eta h)) z,    z ~ N(0, 1)

    x_0 is the estimate at t, x_0' the one before. `order` is 1, 2 or 3. The third order adds the second difference of
    three estimates, with twice the weight that it has in the released code and in diffusers: with theirs the method is
    of second order. The first steps, and the last one, in which lambda is infinite, have a lower order: as many
    estimates as there are, and in the last step x_s = x_0. One network call per step. eta = 0 is deterministic, and its
    first order is `ddim`; eta = 1 is the SDE of the reverse process. Raises ValueError for another order.
    """
    process.require_gaussian("DPM-Solver++", signal=True)
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}")

    def step(keys: Array, x_t: Array, memory: Estimates, t: Array, s: Array) -> tuple[Array, Estimates]:
        now, then = Noise.at(process, t, x_t.ndim), Noise.at(process, s, x_t.ndim)
        x_0 = parameterization.x_0(network(x_t, t, condition), x_t, t)
        known = Estimates((x_0, *memory.x_0), (now.log_ratio, *memory.log_ratio))
        h, noise = then.log_ratio - now.log_ratio, jnp.asarray(eta)
        kept = jnp.where(then.sigma > 0, then.sigma / now.sigma * jnp.exp(-noise * h), 0.0)
        moved = kept * x_t - then.alpha * jnp.expm1(-(1 + noise) * h) * x_0
        mean = moved + then.alpha * _correction(known, h, (1 + noise) * h)
        latest = Estimates(known.x_0[:-1], known.log_ratio[:-1])
        if isinstance(eta, int | float) and eta == 0:
            return mean, latest
        variance = jnp.where(noise * h > 0, jnp.square(then.sigma) * -jnp.expm1(-2 * noise * h), 0.0)
        return Normal(mean, variance).sample(keys), latest

    return Sampler(init=lambda x_T: Estimates.none(x_T, order - 1), step=step)


def _correction(known: Estimates, h: Array, length: Array) -> Array:
    """What the differences of the estimates add to the mean of a step, divided by alpha_s.

    `length` is (1 + eta) h. Zero in the step to the data, where h is infinite, and where there is one estimate only.
    An estimate that is not there yet, or of the same time as the next, is not used.
    """
    if len(known.x_0) == 1:
        return jnp.zeros((), h.dtype)
    onward = jnp.isfinite(h)
    h, length = jnp.where(onward, h, 1.0), jnp.where(onward, length, 1.0)
    gaps = [(a - b) / h for a, b in zip(known.log_ratio[:-1], known.log_ratio[1:], strict=True)]
    usable = [jnp.isfinite(gap) & (gap > 0) & onward for gap in gaps]
    ratios = [jnp.where(here, gap, 1.0) for here, gap in zip(usable, gaps, strict=True)]  # before a division by them
    slopes = [(a - b) / r for a, b, r in zip(known.x_0[:-1], known.x_0[1:], ratios, strict=True)]
    factor = -jnp.expm1(-length)
    second = jnp.where(usable[0], factor / 2 * slopes[0], 0.0)
    if len(known.x_0) == 2:
        return second
    curvature = (slopes[0] - slopes[1]) / (ratios[0] + ratios[1])
    phi_2 = 1 - factor / length
    phi_3 = phi_2 / length - 0.5
    third = phi_2 * (slopes[0] + ratios[0] * curvature) - 2 * phi_3 * curvature
    return jnp.where(usable[0] & usable[1], third, second)


def singlestep(
    process: Process, parameterization: Parameterization, network: Network, condition: Array | None = None
) -> Sampler:
    """DPM-Solver++(2S): second order without memory, two network calls per step (Lu et al. 2022b, Algorithm 1).

        u = sigma_m / sigma_t x_t - alpha_m (e^(-h / 2) - 1) x_0(x_t, t),    lambda_m = lambda_t + h / 2
        x_s = sigma_s / sigma_t x_t - alpha_s (e^(-h) - 1) x_0(u, m)

    The step to the data, where lambda is infinite, is x_s = x_0(x_t, t).
    """
    process.require_gaussian("DPM-Solver++", signal=True)

    def estimate(x: Array, t: Array) -> Array:
        return parameterization.x_0(network(x, t, condition), x, t)

    def step(keys: Array, x_t: Array, memory: Any, t: Array, s: Array) -> tuple[Array, Any]:
        del keys
        now, then = Noise.at(process, t, x_t.ndim), Noise.at(process, s, x_t.ndim)
        x_0, h = estimate(x_t, t), then.log_ratio - now.log_ratio

        def onward() -> Array:
            m = process.schedule.time_of(2 * (now.log_ratio + h / 2)).reshape(jnp.shape(t))
            middle = Noise.at(process, m, x_t.ndim)
            u = middle.sigma / now.sigma * x_t - middle.alpha * jnp.expm1(-h / 2) * x_0
            return then.sigma / now.sigma * x_t - then.alpha * jnp.expm1(-h) * estimate(u, m)

        return jax.lax.cond(s > 0, onward, lambda: x_0), memory

    return Sampler(init=lambda x_T: None, step=step)
