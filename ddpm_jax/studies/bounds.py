"""The bound of a run in few steps: every spacing and variance at once, from one pass over the test images."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from ddpm_jax.diffusion import Schedule
from ddpm_jax.diffusion.samplers import SPACINGS, optimal, step_terms
from ddpm_jax.diffusion.types import Variance
from ddpm_jax.runs.chunks import kept
from ddpm_jax.runs.likelihood import Estimate, mean_and_error
from ddpm_jax.runs.report import fitting_batch
from ddpm_jax.runs.statistics import Statistics, terms_work
from ddpm_jax.sampling import Run
from ddpm_jax.studies.sweep import counts

VARIANCES = ("fixed_small", "fixed_large", "analytic")
SPACED = ("linspace", "even", "quadratic", "optimal")


class Point(NamedTuple):
    """The bound on the negative log-likelihood of a model of some steps."""

    variance: str
    spacing: str
    steps: int
    bits: Estimate
    """Bits per dimension: mean and standard error."""


def bounds(
    run: Run, statistics: Statistics, steps: Sequence[int], num: int | None = None, seed: int = 0
) -> list[Point]:
    """The bounds on the first `num` test images, by default all, those of more than T steps left out.

    The statistics, of training images, decide the analytic variance and the optimal times. The x_t are those of
    ``evaluate``, so the bounds are too, up to rounding. A run with the variance `learned_range` also has its own, at
    all spacings but `optimal`. Raises ValueError for no number of steps up to T.
    """
    source, schedule = run.experiment.data.open("test"), run.schedule
    numbers = counts(steps, schedule.num_steps)
    num = len(source) if num is None else min(num, len(source))
    size = min(num, fitting_batch(run.experiment.data.image_shape))
    own = _own_times(run, numbers)
    targets, column = _targets(own.values(), schedule.num_steps)
    work = terms_work(run, source, num, size, seed, statistics.errors, targets)
    with TemporaryDirectory() as folder:
        results = list(kept(work, Path(folder)))
    terms = {name: np.concatenate([result[name] for result in results]) for name in results[0]}
    points = []
    for variance in VARIANCES:
        spacings = dict(SPACINGS) | {"optimal": optimal(statistics.costs(run, variance))}
        for spacing in SPACED:
            for count in numbers:
                times = spacings[spacing](schedule, count)
                nats = _bound(terms, schedule, statistics.variance(variance), variance == "analytic", times)
                points.append(Point(variance, spacing, count, mean_and_error(nats / math.log(2))))
    for (spacing, count), times in own.items():
        steps_of = [terms["own"][:, t - 1, column[t, s]] for t, s in itertools.pairwise(times.tolist())]
        nats = terms["prior"] + np.sum(steps_of, axis=0)
        points.append(Point("learned_range", spacing, count, mean_and_error(nats / math.log(2))))
    return points


def _own_times(run: Run, numbers: Sequence[int]) -> dict[tuple[str, int], np.ndarray]:
    """The times by spacing and number of steps, for the variance `learned_range` of the run; empty for other runs."""
    if run.experiment.parameterization.learned != "learned_range":
        return {}
    names = [name for name in SPACED if name in SPACINGS]
    return {(name, count): SPACINGS[name](run.schedule, count) for name in names for count in numbers}


def _targets(visits: Iterable[np.ndarray], T: int) -> tuple[np.ndarray, dict[tuple[int, int], int]]:
    """(targets of the steps between these times, as `losses.terms` has them; the column of each step from t to s)."""
    below: dict[int, list[int]] = {t: [] for t in range(1, T + 1)}
    for t, s in sorted({step for times in visits for step in itertools.pairwise(times.tolist())}):
        below[t].append(s)
    column = {(t, s): n for t, ends in below.items() for n, s in enumerate(ends)}
    targets = np.zeros((T, max(map(len, below.values()))), np.int32)
    for (t, s), n in column.items():
        targets[t - 1, n] = s
    return targets, column


def _bound(
    terms: Mapping[str, np.ndarray], schedule: Schedule, variance: Variance, is_analytic: bool, times: np.ndarray
) -> np.ndarray:
    """The bound of each example in nats per element, from terms whose column n is t = n + 1."""
    t, s, last = times[:-2], times[1:-1], times[-2]
    constant, slope = step_terms(schedule, variance, t, s)
    chain = constant.sum() + terms["errors"][:, t - 1] @ slope
    decoder = terms["analytic_decoder" if is_analytic else "decoder"]
    return terms["prior"] + chain + decoder[:, last - 1]


def table(points: Sequence[Point]) -> str:
    """The bits per dimension as a Markdown table, with a column for each number of steps."""
    steps = sorted({point.steps for point in points})
    rows = [
        f"| variance | spacing | {' | '.join(f'K = {count}' for count in steps)} |",
        "|---" * (2 + len(steps)) + "|",
    ]
    for name in dict.fromkeys((point.variance, point.spacing) for point in points):
        cells = [f"{point.bits[0]:.3f}" for point in points if (point.variance, point.spacing) == name]
        rows.append(f"| {' | '.join((*name, *cells))} |")
    return "\n".join(rows)


def curves(points: Sequence[Point], spacings: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """The bounds against the number of steps, by variance and spacing."""
    names = {(point.variance, point.spacing) for point in points if point.spacing in spacings}
    return {
        " ".join(name): [(float(p.steps), p.bits[0]) for p in points if (p.variance, p.spacing) == name]
        for name in sorted(names)
    }


def least(points: Sequence[Point]) -> tuple[float, str]:
    """The least bound, and what it is."""
    best = min(points, key=lambda point: point.bits[0])
    return best.bits[0], f"{best.variance} {best.spacing}, {best.steps} steps"
