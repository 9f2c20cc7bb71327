"""Snapshots of the power-function averages of a run, from which averages of other lengths are computed afterwards."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax.training import checkpoints, distributed
from ddpm_jax.training.averages import power_name, reconstruction
from ddpm_jax.training.loop import Action
from ddpm_jax.training.state import EMA, TrainState

logger = logging.getLogger(__name__)

AVERAGES = "averages"
"""The item of a snapshot."""
MOST = 64
"""The greatest number of snapshots of a run."""
LARGEST_ERROR = 0.01
"""The largest relative squared error of the profile of an average that is computed."""


def period(num_steps: int, save_every: int) -> int:
    """The steps between two snapshots: the least multiple of `save_every` that gives at most `MOST`; 0 for 0."""
    return save_every * max(1, -(-num_steps // (MOST * save_every))) if save_every else 0


@contextmanager
def written(folder: Path, state: TrainState, every: int) -> Iterator[Action]:
    """The action that writes the averages to `folder` every `every` steps, for training that begins with `state`.

    Snapshots of later steps are deleted, and that of its own step is written if it is missing. Does nothing for a state
    whose only average is `EMA`.
    """
    if not _powers(state):
        yield Action(0, lambda *_: None)
        return
    with checkpoints.manager(folder, max_to_keep=None) as manager:

        def write(step: int, state: TrainState, _: Any = None) -> None:
            checkpoints.write(manager, step, {AVERAGES: _powers(state)})

        first = int(state.step)
        for step in distributed.from_leader(sorted(manager.all_steps())):
            if step > first:
                manager.delete(step)
        if every and first and first % every == 0:
            write(first, state)
        yield Action(every, write, at_end=False)


def _powers(state: TrainState) -> dict[str, Any]:
    """The averages of the state apart from `EMA`."""
    return {name: average for name, average in state.averages.items() if name != EMA}


def average(folder: Path, latest: dict[str, Any], lengths: Sequence[float], step: int, length: float) -> Any:
    """The average of this relative length at `step`, from the averages at `step` and the earlier snapshots in `folder`.

    `latest` has the averages of the relative lengths `lengths` at `step`, by name. One of these comes back as it is.
    Damaged snapshots are left out, with a warning. Raises ValueError for a length outside (0, 0.2887), and for one that
    the snapshots do not determine. With several processes, each of them must call this function.
    """
    if length in lengths:
        return latest[power_name(length)]
    with checkpoints.reader(folder) as manager:
        steps = distributed.from_leader([each for each in sorted(manager.all_steps()) if each < step])
    while True:
        total, damaged = _total(folder, latest, _weights([*steps, step], lengths, length))
        if damaged is None:
            one = next(iter(latest.values()))
            return jax.tree.map(lambda x, like: jax.device_put(x.astype(like.dtype), like.sharding), total, one)
        steps.remove(damaged)


def _weights(steps: Sequence[int], lengths: Sequence[float], length: float) -> dict[int, dict[str, float]]:
    """Step -> name -> weight of each stored average in that of this length at the last of the steps.

    Raises ValueError where the profile cannot be fitted.
    """
    weights, error = reconstruction([(step, each) for step in steps for each in lengths], steps[-1], length)
    if error > LARGEST_ERROR:
        raise ValueError(
            f"an average of relative length {length:g} cannot be computed from those of lengths "
            f"{', '.join(map(str, lengths))} at {len(steps)} step(s): its profile would have a relative squared error "
            f"of {error:.2g}. Choose a length nearer to these; with more checkpoints in a run, others can be computed"
        )
    rows = weights.reshape(len(steps), len(lengths)).tolist()
    return {step: dict(zip(map(power_name, lengths), row, strict=True)) for step, row in zip(steps, rows, strict=True)}


def _total(folder: Path, latest: dict[str, Any], weights: dict[int, dict[str, float]]) -> tuple[Any, int | None]:
    """(weighted sum in float64, None), or (None, step) for a snapshot that cannot be read; `latest` is the last."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), latest)
    total = jax.tree.map(lambda x: np.zeros(x.shape), next(iter(latest.values())))
    for step in weights:
        items, error = {AVERAGES: latest}, ""
        if step != max(weights):
            items, error = checkpoints.read(folder, step, {AVERAGES: like})
        if error:
            logger.warning("the averages of step %d in %s are left out: %.200s", step, folder, error)
            return None, step
        for name, weight in weights[step].items():
            total = jax.tree.map(partial(_plus, weight), total, items[AVERAGES][name])
    return total, None


def _plus(weight: float, total: np.ndarray, x: jax.Array) -> np.ndarray:
    return total + weight * np.asarray(x, np.float64)
