"""The checkpoint of the state with the least value of a metric, in a folder of its own beside the newest ones."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ddpm_jax.training import checkpoints, distributed
from ddpm_jax.training.state import TrainState

Keep = Callable[[TrainState, float], bool]
"""``keep(state, value)`` -> whether the value is the least so far; then the state replaces the one that is kept."""


@contextmanager
def kept(folder: Path, metric: str | None) -> Iterator[Keep]:
    """Keeps the state with the least value of this metric in `folder`, as one checkpoint; for None it keeps none.

    The least value is recorded with the checkpoint, so that a resumed run goes on from there. What was kept by another
    metric is replaced by the next state. Every process must call the function; the value of process 0 decides.
    """
    if metric is None:
        yield lambda *_: False
        return
    with checkpoints.manager(folder, max_to_keep=1) as manager:
        least = recorded(folder, metric)

        def keep(state: TrainState, value: float) -> bool:
            nonlocal least
            (better,) = distributed.from_leader([int(value < least)])
            if better:
                for step in manager.all_steps():
                    if step >= int(state.step):  # the run was resumed before it; Orbax keeps the latest only
                        manager.delete(step)
                checkpoints.save(manager, state, metric=metric, value=value)
                least = value
            return bool(better)

        yield keep


def recorded(folder: Path, metric: str) -> float:
    """The value of this metric that was recorded with the checkpoint in `folder`; infinite if there is none."""
    step = checkpoints.latest_step(folder)
    try:
        record = {} if step is None else checkpoints.record_of(folder / str(step)) or {}
    except (OSError, ValueError):  # damaged: the next state replaces it
        return math.inf
    return float(record["value"]) if record.get("metric") == metric else math.inf
