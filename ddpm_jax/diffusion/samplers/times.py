"""The times that a sampler visits."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Num

from ddpm_jax.diffusion.schedules import Schedule

Fractions = Callable[[np.ndarray], np.ndarray]
"""Maps n / count, where n of `count` steps lie between the data and t, to t / T: [0, 1] to [0, 1], non-decreasing."""
Spacing = Callable[[Schedule, int], np.ndarray]
"""``spacing(schedule, count)`` -> `count` + 1 falling times, integer or real, the last of them 0."""


def even(fraction: np.ndarray) -> np.ndarray:
    """Times evenly spaced over 0..T, ``t = T fraction``. Returns t / T, of the shape of `fraction`."""
    return fraction


def quadratic(fraction: np.ndarray) -> np.ndarray:
    """Times dense near the data, ``t = T fraction^2`` (Song et al. 2021, Appendix D.2, for CIFAR-10).

    Returns t / T, of the shape of `fraction`.
    """
    return fraction**2


def times(num_steps: int, count: int, fractions: Fractions = even) -> Int[np.ndarray, " {count}+1"]:
    """``T = t_0 > t_1 > ... > t_count = 0``, the times that a sampler of `count` steps visits.

    `num_steps` is T. The times are rounded to integers, and moved where two would coincide. Raises ValueError unless
    1 <= count <= num_steps.
    """
    check_count(num_steps, count)
    index = np.arange(count + 1)
    # to 9 digits first, so that halves are halves, which are rounded to even numbers
    wanted = np.rint(np.round(num_steps * fractions(index / count), 9)).astype(np.int32)
    # leaves room for the times below and above, so that no time occurs twice
    bounded = np.clip(wanted, index, num_steps - count + index)
    return (np.maximum.accumulate(bounded - index) + index)[::-1].astype(np.int32)


def leading(schedule: Schedule, count: int) -> Int[np.ndarray, " {count}+1"]:
    """Times 1, 1 + T // count, 1 + 2 (T // count), .. of diffusers and of Song et al. 2021; does not reach T.

    Raises ValueError if the first of them is below 0.9 T, where x_T would have too much noise, but for one step.
    """
    check_count(schedule.num_steps, count)
    first = 1 + (count - 1) * (schedule.num_steps // count)
    if count > 10 and first < 0.9 * schedule.num_steps:
        raise ValueError(f"--spacing leading with --steps {count} starts at t = {first}: choose another spacing")
    return np.append(1 + np.arange(count)[::-1] * (schedule.num_steps // count), 0).astype(np.int32)


def linspace(schedule: Schedule, count: int) -> Int[np.ndarray, " {count}+1"]:
    """`count` times evenly spaced over 1..T, both included, then 0 (Nichol & Dhariwal 2021); T alone for one step."""
    check_count(schedule.num_steps, count)
    return np.append(np.rint(np.linspace(schedule.num_steps, 1, count)), 0).astype(np.int32)


def karras(schedule: Schedule, count: int, power: float = 7.0) -> Num[np.ndarray, " {count}+1"]:
    """Real times whose levels sigma / alpha are evenly spaced in their `power`-th root (Karras et al. 2022, Eq. 5)."""
    levels = _levels(schedule) ** (1 / power)
    return _of_levels(schedule, np.linspace(levels[-1], levels[0], count) ** power)


def logsnr(schedule: Schedule, count: int) -> Num[np.ndarray, " {count}+1"]:
    """Real times evenly spaced in the log signal-to-noise ratio (Lu et al. 2022a, Section 3.4, "logSNR")."""
    logs = np.log(_levels(schedule))
    return _of_levels(schedule, np.exp(np.linspace(logs[-1], logs[0], count)))


def _levels(schedule: Schedule) -> np.ndarray:
    """sigma / alpha at t = 1, .., T. Raises ValueError where it is infinite."""
    alpha_bar, one_minus = (np.asarray(each, np.float64) for each in (schedule.alpha_bar, schedule.one_minus_alpha_bar))
    if alpha_bar[-1] == 0:
        raise ValueError("--spacing karras and logsnr need alpha_bar_T above 0, and it is 0 in this schedule: use even")
    return np.sqrt(one_minus[1:] / alpha_bar[1:])


def _of_levels(schedule: Schedule, levels: np.ndarray) -> Num[np.ndarray, " visits"]:
    """The real times of these falling levels sigma / alpha, followed by 0; between integers, log level is linear in t.

    Raises ValueError for fewer than one level, or more than T.
    """
    check_count(schedule.num_steps, len(levels))
    times = np.interp(np.log(levels), np.log(_levels(schedule)), np.arange(1, schedule.num_steps + 1))
    return np.append(times, 0).astype(np.float32)


def check_count(num_steps: int, count: int) -> None:
    """Raises ValueError unless 1 <= count <= num_steps."""
    if not 1 <= count <= num_steps:
        raise ValueError(f"--steps must be between 1 and {num_steps}, got {count}")


def whole(fractions: Fractions) -> Spacing:
    """The spacing at whole times that `times` makes of these fractions."""
    return lambda schedule, count: times(schedule.num_steps, count, fractions)


SPACINGS: Mapping[str, Spacing] = {
    "even": whole(even),
    "quadratic": whole(quadratic),
    "leading": leading,
    "linspace": linspace,
    "karras": karras,
    "logsnr": logsnr,
}
"""The spacings by name. `even` is "trailing" in diffusers. All but `leading` start at T. The times of `karras` and
`logsnr` are real."""
