"""PNDM and PLMS: linear multistep methods for eps, moved from time to time as in DDIM (Liu et al. 2022)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from ddpm_jax.diffusion.gaussian import q_sample
from ddpm_jax.diffusion.samplers.ddim import noise_of
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler

WEIGHTS = ((1, 0, 0, 0), (3 / 2, -1 / 2, 0, 0), (23 / 12, -16 / 12, 5 / 12, 0), (55 / 24, -59 / 24, 37 / 24, -9 / 24))
"""The weights of the last estimates of eps, newest first, by the number of earlier ones (Adams and Bashforth)."""


class History(NamedTuple):
    """The memory: the last three estimates of eps, newest first, and how many there are."""

    eps: tuple[Array, ...]
    count: Int[Array, ""]


def pndm(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    condition: Array | None = None,
    *,
    runge_kutta: bool = True,
) -> Sampler:
    """Pseudo numerical methods for diffusion models, F-PNDM (Liu et al. 2022, Algorithm 2 and Eqs. 11-13).

        x_s = phi(x_t, eps, t, s) = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s) eps,  x_0 that of x_t and eps
        eps = (55 eps_t - 59 eps_t' + 37 eps_t'' - 9 eps_t''') / 24

    The first three steps are of Runge and Kutta's method, with four network calls each, at t, twice at (t + s) / 2, and
    at s; without `runge_kutta` (PLMS, as in Stable Diffusion) they are linear multistep of lower order, with one. The
    weights are those of steps of equal length in t: use the spacing `even`. With Runge and Kutta's start the walk
    diverges where alpha_bar_T is almost 0, as in `schedules.cosine`, since x_0 is recomputed from x_T: use PLMS there.
    """
    process.require_gaussian("PNDM", signal=True)

    def eps_at(x: Array, t: Array) -> Array:
        return noise_of(process, x, parameterization.x_0(network(x, t, condition), x, t), t)

    def step(keys: Array, x_t: Array, memory: History, t: Array, s: Array) -> tuple[Array, History]:
        del keys
        eps = eps_at(x_t, t)
        used, memory = _multistep(eps, memory)
        if runge_kutta:
            begins = memory.count <= 3
            used = jax.lax.cond(begins, lambda: _runge_kutta(process, eps_at, x_t, eps, t, s), lambda: used)
        return transfer(process, x_t, used, t, s), memory

    def init(x_T: Array) -> History:
        return History((jnp.zeros_like(x_T),) * 3, jnp.int32(0))

    return Sampler(init=init, step=step)


def _multistep(eps: Array, memory: History) -> tuple[Array, History]:
    """The weighted sum of this eps and of those before, and the memory with this one."""
    latest = (eps, *memory.eps)
    weights = jnp.asarray(WEIGHTS, eps.dtype)[jnp.minimum(memory.count, 3)]
    total = sum((weights[i] * each for i, each in enumerate(latest)), jnp.zeros_like(eps))
    return total, History(latest[:3], memory.count + 1)


def _runge_kutta(
    process: Process, eps_at: Callable[[Array, Array], Array], x_t: Array, eps: Array, t: Array, s: Array
) -> Array:
    """The eps of a step of Runge and Kutta's method; a network that is needed below 1 is evaluated at 1."""
    middle, end = jnp.maximum((t + s) / 2, 1), jnp.maximum(s, 1)
    second = eps_at(transfer(process, x_t, eps, t, middle), middle)
    third = eps_at(transfer(process, x_t, second, t, middle), middle)
    fourth = eps_at(transfer(process, x_t, third, t, end), end)
    return (eps + 2 * second + 2 * third + fourth) / 6


def transfer(process: Process, x_t: Array, eps: Array, t: Array, s: Array) -> Array:
    """x_s from x_t and its noise eps, for any s: the step of DDIM without noise (Liu et al. 2022, Eq. 11)."""
    alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
    x_0 = (x_t - jnp.sqrt(one_minus) * eps) / jnp.sqrt(alpha_bar)
    return q_sample(process.schedule, x_0, s, eps)
