"""The log-likelihood of the probability-flow ODE of a Gaussian process (Song et al. 2021b, Sections 4.3 and D.2)."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.types import Network, Parameterization, Process

MOST_STEPS = 4096
"""The most steps of the adaptive solver, rejected ones included."""


class Likelihood(NamedTuple):
    """The log-likelihood of each example, and the work that it took."""

    log_prob: Float[Array, " batch"]
    """log p(x_1), in nats per example; NaN where the solver did not reach T in `MOST_STEPS` steps."""
    calls: Int[Array, " batch"]
    """Calls of the network, each with its derivative in one direction."""


def log_likelihood(
    keys: Key[Array, " batch"],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_1: Float[Array, "batch *shape"],
    condition: Array | None = None,
    tolerance: Array | float = 1e-5,
    steps: int | None = None,
) -> Likelihood:
    """log p(x_1) of the probability-flow ODE, which starts from x_T ~ N(0, 1) (Song et al. 2021b, Eq. 39).

        dx / dl = sigma eps(x, t) - sigma^2 x,    sigma = sqrt(1 - alpha_bar),    l = log(sigma / sqrt(alpha_bar))
        log p(x_1) = log N(x_T; 0, 1) + integral from l_1 to l_T of the divergence of dx / dl

    The ODE is solved from t = 1, below which the network is not defined, to T, at real t; its variable l is half of the
    negative log signal-to-noise ratio. The divergence is estimated by v^T J v with random signs v, the same during the
    whole solution (Hutchinson's estimator, their Eq. 40): unbiased, and exact where J is diagonal.

    The solver is Dopri5 (RK45). It chooses the steps of each example by that example's error: the root mean squared
    error of x and the error of log p per dimension stay below `tolerance`, relative and absolute. With `steps` it
    takes that number of equal steps in l instead. `network` receives one example at a time, under `jax.vmap`. Raises
    ValueError unless the process is Gaussian with alpha_bar_T above 0.
    """
    process.require_gaussian("the probability-flow ODE", signal=True)
    levels = [_level(process, t) for t in (1, process.schedule.num_steps)]

    def one(key: Array, x: Array, label: Array | None) -> tuple[Array, Array]:
        signs = jax.random.rademacher(key, x.shape, x.dtype)
        given = None if label is None else label[None]
        field = _field(process, parameterization, network, given, signs)
        return _solved(field, x, levels, tolerance, steps)

    return Likelihood(*jax.vmap(one)(keys, x_1, condition))


def _level(process: Process, t: ArrayLike) -> Array:
    """l = log(sigma / sqrt(alpha_bar)) at t."""
    alpha_bar, one_minus = process.schedule.at(t, 0)
    return 0.5 * (jnp.log(one_minus) - jnp.log(alpha_bar))


def _field(
    process: Process, parameterization: Parameterization, network: Network, condition: Array | None, signs: Array
) -> Any:
    """The function of (l, (x, log p per dimension), None) that returns their derivatives along the path, by l."""

    def velocity(x: Array, level: Array) -> Array:
        t = process.schedule.time_of(-2 * level)
        alpha_bar, share = process.schedule.at(t, 0)  # not from the level: 1 - share would lose alpha_bar near T
        x_0 = parameterization.x_0(network(x[None], t, condition), x[None], t)[0]
        return x - jnp.sqrt(alpha_bar) * x_0 - share * x

    def field(level: Array, state: tuple[Array, Array], _: None) -> tuple[Array, Array]:
        # J v, not v^T J: forward mode costs less memory, and on CPUs less time in a loop
        moved, changed = jax.jvp(lambda x: velocity(x, level), (state[0],), (signs,))
        return moved, jnp.sum(changed * signs) / signs.size

    return field


def _solved(
    field: Any, x: Array, levels: list[Array], tolerance: Array | float, steps: int | None
) -> tuple[Array, Array]:
    """log p(x) and the number of calls of the network, by the solution over the levels."""
    start, stop = levels
    if steps is None:
        control = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_largest)
        spent: dict[str, Any] = {"stepsize_controller": control, "max_steps": MOST_STEPS, "dt0": None}
    else:
        spent = {"max_steps": steps + 1, "dt0": (stop - start) / steps}
    term, state = diffrax.ODETerm(field), (x, jnp.zeros((), x.dtype))
    solution = diffrax.diffeqsolve(term, diffrax.Dopri5(), start, stop, y0=state, throw=False, **spent)
    reached: Any = solution.ys
    x_T, gained = (value[-1] for value in reached)
    found = jnp.sum(jax.scipy.stats.norm.logpdf(x_T)) + gained * x.size
    calls = 6 * solution.stats["num_steps"] + 1  # the last stage of a step is the first of the next
    return jnp.where(solution.result == diffrax.RESULTS.successful, found, jnp.nan), calls


def _largest(error: tuple[Array, Array]) -> Array:
    """The larger of the root mean squared error of x and the error of log p per dimension."""
    of_x, of_log_prob = error
    return jnp.maximum(jnp.sqrt(jnp.mean(jnp.square(of_x))), jnp.abs(of_log_prob))
