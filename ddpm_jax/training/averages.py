"""Averages of the parameters over the steps, and averages of other lengths computed from those that were stored.

Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models", Section 3 and Appendix C.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

POWER_LENGTHS = (0.05, 0.1)
"""The relative lengths of the two averages from which those of other lengths are computed."""
LONGEST = 12**-0.5
"""The relative length of the plain mean over the run, where gamma = 0."""


def ema_ramp(decay: float) -> optax.Schedule:
    """An EMA decay that starts small and rises to `decay`: ``min(decay, (1 + step) / (10 + step))``.

    For runs that are shorter than a few times ``1 / (1 - decay)`` steps, in which the average with a constant decay
    would keep much of the initial parameters. Ho et al. 2020 use a constant decay.
    """
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


class Power(NamedTuple):
    """The average after n steps with a profile proportional to t^gamma over the past (Karras et al. 2024, Eq. 127).

        average_n = average_{n-1} + share_n (params_n - average_{n-1}),    share_n = 1 - (1 - 1/n)^(gamma + 1)

    The first step replaces what the average was. In a longer run it is longer in the same proportion.
    """

    gamma: float

    def share(self, step: Array) -> Float[Array, ""]:
        """share_n for n = step + 1, where `step`, a scalar, is the number of steps before."""
        # 1 - decay would lose the digits of a share of 1e-5
        return -jnp.expm1((self.gamma + 1) * jnp.log1p(-1.0 / (step + 1)))


Decay = optax.ScalarOrSchedule | Power
"""The decay of an average: a number, a function of the step, or a `Power`."""


def averaged(params: Any, average: Any, decay: Decay, step: Array) -> Any:
    """The average with the parameters of one more step; `step` is the number of steps before."""
    if isinstance(decay, Power):
        return optax.incremental_update(params, average, decay.share(step))
    return optax.incremental_update(params, average, 1 - (decay(step) if callable(decay) else decay))


def power_name(length: float) -> str:
    """The name of the average of this relative length in the train state, such as "power_0.05"."""
    return f"power_{length:g}"


def gamma_of(length: float) -> float:
    """The gamma of the profile t^gamma whose standard deviation is `length` times the run (2024, Eq. 126).

    The largest real root of gamma^3 + 7 gamma^2 + (16 - 1 / length^2) gamma + (12 - 1 / length^2). Raises ValueError
    for a length outside (0, `LONGEST`).
    """
    if not 0 < length < LONGEST:
        raise ValueError(f"the relative length of an average lies above 0 and below {LONGEST:.4f}, got {length}")
    roots = np.roots([1.0, 7.0, 16.0 - length**-2, 12.0 - length**-2])
    return float(roots[np.abs(roots.imag) < 1e-9].real.max())


class Reconstruction(NamedTuple):
    """An average as a weighted sum of stored ones."""

    weights: np.ndarray
    """float64, one for each stored average; their sum is 1."""
    error: float
    """Squared norm of the error of the profile, relative to that of the profile."""


def reconstruction(stored: Sequence[tuple[int, float]], step: int, length: float) -> Reconstruction:
    """The average of this relative length at `step`, by least squares (Karras et al. 2024, Algorithm 3).

    `stored` has (step, relative length) of each stored average, all different, with 1 <= step <= `step`. The profiles
    are fitted, in float64, so the weights are the same for all parameters. An average that is stored has weight 1.
    Raises ValueError for a length outside (0, `LONGEST`), and at step 0.
    """
    if step < 1:
        raise ValueError("an average needs at least one training step: this is step 0")
    t, gamma = np.array([[each, gamma_of(sigma)] for each, sigma in stored]).T
    wanted = np.float64(step), np.float64(gamma_of(length))
    products, target = _inner_product(t[:, None], gamma[:, None], t, gamma), _inner_product(t, gamma, *wanted)
    weights = np.linalg.solve(products, target)
    weights /= weights.sum()
    norm = _inner_product(*wanted, *wanted)
    error = (weights @ products @ weights - 2 * weights @ target + norm) / norm
    return Reconstruction(weights, max(0.0, float(error)))


def _inner_product(t_a: Any, gamma_a: Any, t_b: Any, gamma_b: Any) -> Any:
    """The integral of the product of two profiles, each with integral 1 up to its t (Karras et al. 2024, Eq. 151)."""
    exponent = np.where(t_a < t_b, gamma_b, -gamma_a)
    ratio = (t_a / t_b) ** exponent
    return (gamma_a + 1) * (gamma_b + 1) * ratio / ((gamma_a + gamma_b + 1) * np.maximum(t_a, t_b))
