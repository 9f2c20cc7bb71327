"""The times with the least bound, by dynamic programming (Watson et al. 2021)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ddpm_jax.diffusion.samplers.times import Spacing, check_count
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Variance


def step_terms(schedule: Schedule, variance: Variance, t: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(constant, slope) of the KL divergences of steps from t to s, nats per element, float64 (Ho et al. 2020, Eq. 8).

        mean of D_KL(q(x_s | x_t, x_0) || p(x_s | x_t)) over the elements = constant + slope errors_t
        constant = (beta_tilde / variance - 1 - log(beta_tilde / variance)) / 2
        slope    = (sqrt(alpha_bar_s) beta / (1 - alpha_bar_t))^2 / (2 variance)

    errors_t is the mean of (x_0 - estimate of x_0)^2 at t. t and s are arrays of integers, 1 <= s < t; they, constant
    and slope are of one shape. beta and beta_tilde are those of the step.
    """
    # float32 would lose digits of beta; the variance is a factor of each term, so float32 is enough for it
    log = np.asarray(schedule.log_alpha_bar, np.float64) + np.asarray(schedule.log_alpha_bar_rest, np.float64)
    beta, lost_t, lost_s = (-np.expm1(each) for each in (log[t] - log[s], log[t], log[s]))
    value = np.asarray(_values(schedule, variance, t, s), np.float64)
    ratio = lost_s / lost_t * beta / value
    return (ratio - 1 - np.log(ratio)) / 2, np.exp(log[s]) * (beta / lost_t) ** 2 / (2 * value)


@jax.jit
def _evaluated(schedule, variance, t, s):
    return variance(schedule, t, s, 1)


def _values(schedule: Schedule, variance: Variance, t: np.ndarray, s: np.ndarray) -> jax.Array:
    chosen = variance if isinstance(variance, jax.tree_util.Partial) else jax.tree_util.Partial(variance)
    return jnp.broadcast_to(_evaluated(schedule, chosen, t, s), np.shape(t))


def step_costs(
    schedule: Schedule, variance: Variance, errors: Float[np.ndarray, " times"], decoder: Float[np.ndarray, " times"]
) -> Float[np.ndarray, "times times"]:
    """``costs[t, s]``: the term of the bound of the step from t to s, nats per element, float64; infinite for s >= t.

    ``errors[t]`` is the mean of (x_0 - estimate of x_0)^2, and ``decoder[t]`` that of -log p(x_0 | x_t), the step to
    s = 0; both are unused at t = 0. See `losses.terms`. The costs of a path add up to its bound without the prior term.
    """
    T = schedule.num_steps
    costs = np.full((T + 1, T + 1), np.inf)
    costs[1:, 0] = decoder[1:]
    s = np.arange(1, T)
    for t in range(2, T + 1):  # a row at a time: the temporary arrays stay small
        constant, slope = step_terms(schedule, variance, np.full(T - 1, t), np.minimum(s, t - 1))
        costs[t, 1:t] = (constant + slope * errors[t])[: t - 1]
    return np.where(np.isnan(costs), np.inf, costs)


def path_cost(costs: Float[np.ndarray, "times times"], times: Int[np.ndarray, " visits"]) -> float:
    """The sum of the costs of the steps between consecutive times, which are integers and fall to 0."""
    return float(costs[times[:-1], times[1:]].sum())


def best_times(costs: Float[np.ndarray, "times times"], count: int) -> Int[np.ndarray, " {count}+1"]:
    """The times from T to 0 in `count` steps whose costs have the least sum (Watson et al. 2021, Algorithm 1).

        least_1(t) = costs[t, 0],    least_k(t) = min_s least_{k-1}(s) + costs[t, s]

    Takes O(count T^2) operations. Raises ValueError unless 1 <= count <= T.
    """
    T = len(costs) - 1
    check_count(T, count)
    least, before, total = costs[:, 0], [], np.empty_like(costs)
    for _ in range(count - 1):
        np.add(costs, least, out=total)
        before.append(total.argmin(axis=1))
        least = total[np.arange(T + 1), before[-1]]
    path = [T]
    for origin in reversed(before):
        path.append(int(origin[path[-1]]))
    return np.array([*path, 0], np.int32)


def optimal(costs: Float[np.ndarray, "times times"]) -> Spacing:
    """The spacing whose times have the least sum of these costs, a result of `step_costs`.

    The best bound does not give the best pictures: with CIFAR-10 and other data, samples at these times had a greater
    Frechet distance than at even ones (Watson et al. 2021; Bao et al. 2022, Appendix G.5).
    """

    def spacing(schedule: Schedule, count: int) -> np.ndarray:
        if schedule.num_steps != len(costs) - 1:
            raise ValueError(f"the costs are those of {len(costs) - 1} steps, the schedule has {schedule.num_steps}")
        return best_times(costs, count)

    return spacing
