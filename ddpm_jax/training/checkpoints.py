"""Orbax checkpoints of a train state: written in the background, several kept, the newest good one found again."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ddpm_jax.training.state import TrainState

logger = logging.getLogger(__name__)


def manager(folder: Path, max_to_keep: int = 3) -> ocp.CheckpointManager:
    """Keeps the newest `max_to_keep` checkpoints in `folder`. A context manager: leaving it waits for the saves."""
    options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, enable_async_checkpointing=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def reader(folder: Path) -> ocp.CheckpointManager:
    """The checkpoints in `folder`, to look at only; an absent folder is one without any."""
    options = ocp.CheckpointManagerOptions(read_only=True, create=False)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Starts to write the state, the average as an item of its own; a no-op if its step is there already."""
    step = int(state.step)
    if step in checkpoints.all_steps():
        return
    rest = state._replace(ema=None)._asdict()
    items = ocp.args.Composite(ema=ocp.args.StandardSave(state.ema), rest=ocp.args.StandardSave(rest))
    checkpoints.save(step, args=items)


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest state that can be read, with the shapes and shardings of `like`; None if there is no checkpoint.

    Newer ones that cannot be read are moved to ``damaged/`` beside the folder, and a warning names them. If none can be
    read nothing is moved and ValueError gives the newest one's error.
    """
    rest = like._replace(ema=None)._asdict()
    args = ocp.args.Composite(ema=ocp.args.StandardRestore(like.ema), rest=ocp.args.StandardRestore(rest))
    found = _newest_readable(checkpoints, args)
    if found is None:
        return None
    items, _, damaged = found
    for step in damaged:
        _set_aside(checkpoints, step)
    return TrainState(**{**items.rest, "ema": items.ema})


def restore_ema(checkpoints: ocp.CheckpointManager, like: Any) -> tuple[Any, int] | None:
    """The averaged parameters of the newest checkpoint that can be read, and its step; None if there is no checkpoint.

    Nothing in the folder is changed. Raises ValueError if there are checkpoints but none can be read.
    """
    found = _newest_readable(checkpoints, ocp.args.Composite(ema=ocp.args.StandardRestore(like)))
    return found and (found[0].ema, found[1])


def _newest_readable(checkpoints: ocp.CheckpointManager, args: ocp.args.Composite) -> tuple[Any, int, list[int]] | None:
    """(items, step, steps of the newer ones that could not be read), or None where there are no checkpoints at all."""
    damaged, errors = [], []
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return checkpoints.restore(step, args=args), step, damaged
        except Exception as error:  # a damaged file surfaces as any of a dozen types
            reason = str(error).strip().split("\n")[0]
            logger.warning("checkpoint %d cannot be read (%.200s): trying the one before", step, reason)
            damaged.append(step)
            errors.append(reason)
    if errors:
        raise ValueError(f"none of the checkpoints in {checkpoints.directory} can be read: {errors[0]:.300s}")
    return None


def _set_aside(checkpoints: ocp.CheckpointManager, step: int) -> None:
    folder = Path(checkpoints.directory)
    target = folder.parent / "damaged" / f"{step}-{time.time_ns()}"
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder / str(step), target)
    checkpoints.reload()
    logger.warning("the damaged checkpoint %d was moved to %s", step, target)
