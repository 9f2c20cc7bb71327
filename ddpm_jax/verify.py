"""What `verify` does: a run's figures beside those its paper states, line by line, without training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.data import flip
from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.experiment import Experiment, out_channels, shapes

TOLERANCE = 1e-4
"""Relative, for what is not measured: float32 tables against the paper's decimals."""


class Row(NamedTuple):
    """One line of the ledger."""

    what: str
    expected: float
    here: float | None
    """None where it is not measured."""
    agrees: bool | None
    """None for what training has to show: the reader judges."""
    source: str
    protocol: str = ""
    """How `here` was measured."""


def verify(experiment: Experiment, folder: Path | None = None) -> list[Row]:
    """Each claim of the experiment, beside the same figure of the run as it would be built, or as measured in `folder`.

    Raises ValueError for an experiment without claims.
    """
    if not experiment.claims:
        raise ValueError("this experiment makes no claims: there is nothing to verify")
    rows = []
    for claim in experiment.claims:
        if claim.what in FIGURES:
            here = FIGURES[claim.what](experiment)
            agrees = here is not None and bool(abs(here - claim.value) <= TOLERANCE * abs(claim.value))
            rows.append(Row(claim.what, claim.value, here, agrees, claim.source))
        elif claim.what in MEASURED:
            here, protocol = _measured(claim.what, folder)
            rows.append(Row(claim.what, claim.value, here, None, claim.source, protocol))
        else:
            raise ValueError(f"a claim on {claim.what!r}: choose one of {', '.join((*FIGURES, *MEASURED))}")
    return rows


def _parameters(experiment: Experiment) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment)))


def _kernel(experiment: Experiment, size: float) -> Normal:
    """p(x_1 | x_2) of a pixel whose x_2 is zero, where the network's output has this value."""
    channels = experiment.data.image_shape[-1]
    output = jnp.full((1, 1, 1, out_channels(experiment)), size)
    return experiment.parameterization.kernel(output, jnp.zeros((1, 1, 1, channels)), 2, 1)


def _is_clipped(experiment: Experiment) -> bool:
    return bool((_kernel(experiment, 1e6).mean == _kernel(experiment, 2e6).mean).all())


def _beta(experiment: Experiment, t: int) -> float:
    return float(experiment.process.schedule.between(t - 1, t, 0)[1])


def learning_rates(experiment: Experiment, last: int) -> jax.Array:
    """Of steps 0 .. `last`, as Adam's updates of a parameter show them whose gradient is always one."""
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
    "variance at t = 2": lambda experiment: float(_kernel(experiment, 0.0).variance.ravel()[0]),
    "x_0 is clipped": _is_clipped,
    "learning rate at step 2500": lambda experiment: float(learning_rates(experiment, 2500)[-1]),
    "learning rate after step 5000": lambda experiment: float(learning_rates(experiment, 5001)[-1]),
}
"""What is read off an experiment that has not been trained; None where it has no such number."""

MEASURED: dict[str, str | None] = {
    "bits/dim": "total",
    "K": "K",
    "K - L_null": "K_over_null",
    "FID": None,
    "IS": None,
}
"""What training has to show, and where ``evaluation.json`` has it, if `evaluate` measures it."""


def _measured(what: str, folder: Path | None) -> tuple[float | None, str]:
    """The newest measurement of all terms over the whole test split in the workdir, and how it was made."""
    path = None if folder is None else folder / "evaluation.json"
    figure = MEASURED[what]
    if figure is None or path is None or not path.exists():
        return None, "not measured"
    whole = [record for record in json.loads(path.read_text()) if _is_whole(record)]
    if not whole:
        return None, "not measured in full: ddpm-jax evaluate"
    newest = max(whole, key=lambda record: record["step"])
    mean, error = newest["bpd"][figure]
    told = f"+- {error:.4f}, {newest['bpd']['num_examples']} test examples, all {newest['bpd']['times']} chain terms"
    return mean, f"{told}, {newest['weights']} weights, step {newest['step']}"


def _is_whole(record: dict[str, Any]) -> bool:
    protocol = record["protocol"]
    if "bpd" not in record:
        return False
    return (
        protocol["split"] == "test"
        and protocol["num"] is None
        and protocol["times"] is None
        and protocol.get("clip", True)
    )


def table(rows: list[Row]) -> str:
    """The ledger for people."""
    verdicts = {True: "agrees", False: "DIFFERS", None: ""}
    lines = [("", "expected", "here", "", "source")]
    for row in rows:
        here = "-" if row.here is None else _figure(float(row.here))
        lines.append((row.what, _figure(float(row.expected)), here, verdicts[row.agrees] or row.protocol, row.source))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join((*map(str.ljust, line[:4], widths), line[4])).rstrip() for line in lines)


def markdown(command: str, rows: list[Row]) -> str:
    """The ledger as a row of README's table: run, what agrees without training, the paper's results, and ours."""
    checked = [row.agrees for row in rows if row.agrees is not None]
    results = [row for row in rows if row.agrees is None]
    paper = ", ".join(f"{row.what} {_figure(row.expected)}" for row in results) or "no number"
    ours = ", ".join(f"{row.what} {_figure(row.here)} ({row.protocol})" for row in results if row.here is not None)
    return f"| `{command}` | {sum(checked)} of {len(checked)} | {paper} | {ours or 'not measured'} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.6g}"
