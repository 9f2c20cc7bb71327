"""Orbax checkpoints of a `TrainState`: written in the background; the newest readable one is restored."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ddpm_jax.training.state import EMA, TrainState

logger = logging.getLogger(__name__)


def manager(folder: Path, max_to_keep: int = 3) -> ocp.CheckpointManager:
    """Orbax's manager of the newest `max_to_keep` checkpoints in `folder`. Its context waits for unfinished saves."""
    options = ocp.CheckpointManagerOptions(max_to_keep=max_to_keep, enable_async_checkpointing=True)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def reader(folder: Path) -> ocp.CheckpointManager:
    """A read-only manager of the checkpoints in `folder`; a folder that does not exist has no checkpoints."""
    options = ocp.CheckpointManagerOptions(read_only=True, create=False)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def save(checkpoints: ocp.CheckpointManager, state: TrainState) -> None:
    """Starts to write the state in the background; does nothing if there is a checkpoint of its step already."""
    step = int(state.step)
    if step in checkpoints.all_steps():
        return
    items = {name: ocp.args.StandardSave(item) for name, item in _to_items(state).items()}
    checkpoints.save(step, args=ocp.args.Composite(**items))


def _to_items(state: TrainState) -> dict[str, Any]:
    """The items of the checkpoint of a state. `EMA` is an item of its own, so that sampling reads nothing else.

    The items "ema" and "rest" have the format of version 0.1. "more" is written only if there are other averages or a
    history.
    """
    averages = dict(state.averages)
    ema = averages.pop(EMA)
    rest = {"step": state.step, "params": state.params, "ema": None, "opt_state": state.opt_state}
    more = {"averages": averages, "history": state.history}
    return {"ema": ema, "rest": rest} | ({"more": more} if averages or state.history is not None else {})


def _from_items(items: Any) -> TrainState:
    rest = {name: value for name, value in items["rest"].items() if name != "ema"}
    more = items.get("more", {"averages": {}, "history": None})
    return TrainState(**rest, averages={EMA: items["ema"], **more["averages"]}, history=more["history"])


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest readable state, with the shapes and shardings of `like`; None if there is no checkpoint.

    Newer checkpoints that cannot be read are moved to ``damaged/`` beside the folder, and a warning names them. If no
    checkpoint can be read, none is moved, and ValueError is raised with the error of the newest one.
    """
    items = {name: ocp.args.StandardRestore(item) for name, item in _to_items(like).items()}
    found = _newest_readable(checkpoints, ocp.args.Composite(**items))
    if found is None:
        return None
    items, _, damaged = found
    for step in damaged:
        _set_aside(checkpoints, step)
    return _from_items(items)


def restore_parameters(checkpoints: ocp.CheckpointManager, like: TrainState, weights: str) -> tuple[Any, int] | None:
    """(parameters, step) of the newest readable checkpoint; None if there is none. Changes nothing in the folder.

    The parameters are the average `EMA` for `weights` "ema", and those that the optimizer updates for "raw". They have
    the shapes and shardings of `like`. Raises ValueError if there are checkpoints but none can be read.
    """
    wanted = {"ema": "ema", "raw": "rest"}[weights]
    item = ocp.args.StandardRestore(_to_items(like)[wanted])
    found = _newest_readable(checkpoints, ocp.args.Composite(**{wanted: item}))
    if found is None:
        return None
    return (found[0].ema if weights == "ema" else found[0].rest["params"]), found[1]


def _newest_readable(checkpoints: ocp.CheckpointManager, args: ocp.args.Composite) -> tuple[Any, int, list[int]] | None:
    """(items, step, steps of the newer checkpoints that cannot be read), or None if there are no checkpoints at all."""
    damaged, errors = [], []
    for step in sorted(checkpoints.all_steps(), reverse=True):
        try:
            return checkpoints.restore(step, args=args), step, damaged
        except Exception as error:  # a damaged file raises one of many exception types
            reason = str(error).strip().split("\n")[0]
            logger.warning("checkpoint %d cannot be read (%.200s): trying the previous one", step, reason)
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
