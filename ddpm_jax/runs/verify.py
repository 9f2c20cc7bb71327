"""Comparison of an experiment with the numbers ("figures") that its paper states, without training."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.data import flip
from ddpm_jax.experiment import Experiment, shapes
from ddpm_jax.runs.comparable import MEASURED, newest

TOLERANCE = 1e-4
"""Relative tolerance for figures that need no training: it allows for tables in float32."""


class Row(NamedTuple):
    """One line of the comparison."""

    what: str
    expected: float
    here: float | None
    """The figure of the experiment; None if it has none, or if it is not measured."""
    agrees: bool | None
    """Whether `expected` and `here` agree; None for results of training, which are not judged."""
    source: str
    protocol: str = ""
    """How the figure was measured."""


def verify(experiment: Experiment, folder: Path | None = None) -> list[Row]:
    """Compares each claim with the figure of the experiment, or with the result measured in the workdir `folder`.

    Raises ValueError for an experiment without claims, or a claim on an unknown figure.
    """
    if not experiment.claims:
        raise ValueError("this experiment has no claims of a paper to verify: choose one that sets `claims`")
    rows = []
    for claim in experiment.claims:
        if claim.what in FIGURES:
            here = FIGURES[claim.what](experiment)
            agrees = here is not None and bool(abs(here - claim.value) <= TOLERANCE * abs(claim.value))
            rows.append(Row(claim.what, claim.value, here, agrees, claim.source))
        elif claim.what in MEASURED:
            here, protocol = newest(claim.what, folder)
            rows.append(Row(claim.what, claim.value, here, None, claim.source, protocol))
        else:
            raise ValueError(f"a claim on {claim.what!r}: choose one of {', '.join((*FIGURES, *MEASURED))}")
    return rows


def _parameters(experiment: Experiment) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment)))


def _beta(experiment: Experiment, t: int) -> float:
    return float(experiment.process.schedule.between(t - 1, t, 0)[1])


def _variance(experiment: Experiment) -> float | None:
    """The fixed variance of p(x_1 | x_2)."""
    variance = experiment.parameterization.variance
    return None if variance is None else float(variance(experiment.process.schedule, 2, 1, 0))


def learning_rates(experiment: Experiment, last: int) -> jax.Array:
    """The learning rates of steps 0 .. `last` of an Adam optimizer: its updates, negated, if every gradient is 1."""
    params = jnp.zeros(())

    def move(state, _):
        update, state = experiment.optimizer.update(jnp.ones(()), state, params)
        return state, -jnp.asarray(update)

    return jax.lax.scan(move, experiment.optimizer.init(params), length=last + 1)[1]


FIGURES: dict[str, Callable[[Experiment], float | None]] = {
    "parameters": _parameters,
    "T": lambda experiment: experiment.process.schedule.num_steps,
    "beta_1": lambda experiment: _beta(experiment, 1),
    "beta_T": lambda experiment: _beta(experiment, experiment.process.schedule.num_steps),
    "batch size": lambda experiment: experiment.batch_size,
    "training steps": lambda experiment: experiment.num_steps,
    "EMA decay": lambda experiment: None if callable(experiment.ema_decay) else float(experiment.ema_decay),
    "dropout": lambda experiment: getattr(experiment.network, "dropout", None),
    "flips": lambda experiment: experiment.augment is flip,
    "variance at t = 2": _variance,
    "x_0 is clipped": lambda experiment: experiment.parameterization.clip is not None,
    "learning rate at step 1": lambda experiment: float(learning_rates(experiment, 1)[-1]),
    "learning rate at step 2500": lambda experiment: float(learning_rates(experiment, 2500)[-1]),
    "learning rate after step 5000": lambda experiment: float(learning_rates(experiment, 5001)[-1]),
}
"""The figures that an experiment has without training, by name; None where it has no such figure."""


def table(rows: list[Row]) -> str:
    """The comparison as a table."""
    verdicts = {True: "agrees", False: "DIFFERS", None: ""}
    lines = [("", "expected", "here", "", "source")]
    for row in rows:
        here = "-" if row.here is None else _figure(float(row.here))
        lines.append((row.what, _figure(float(row.expected)), here, verdicts[row.agrees] or row.protocol, row.source))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join((*map(str.ljust, line[:4], widths), line[4])).rstrip() for line in lines)


def markdown(command: str, rows: list[Row]) -> str:
    """The comparison as a row of a Markdown table: command, number of figures that agree, the paper's results, ours."""
    checked = [row.agrees for row in rows if row.agrees is not None]
    results = [row for row in rows if row.agrees is None]
    paper = ", ".join(f"{row.what} {_figure(row.expected)}" for row in results) or "no number"
    ours = ", ".join(f"{row.what} {_figure(row.here)} ({row.protocol})" for row in results if row.here is not None)
    return f"| `{command}` | {sum(checked)} of {len(checked)} | {paper} | {ours or 'not measured'} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.6g}"
