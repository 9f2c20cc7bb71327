"""Orbax checkpoints of a `TrainState`: written in the background; the newest undamaged one is restored.

A checkpoint contains the digest of each of its arrays, computed from the arrays that were saved. What is read must have
these digests. With several processes, process 0 chooses the checkpoint, and all processes must be able to read it.
"""

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from ddpm_jax.training import distributed
from ddpm_jax.training.digests import digest, digests
from ddpm_jax.training.state import EMA, TrainState

__all__ = [
    "digest",
    "latest_step",
    "manager",
    "read",
    "reader",
    "record_of",
    "restore",
    "restore_averages",
    "restore_parameters",
    "save",
    "write",
]

logger = logging.getLogger(__name__)

MORE = "more"
"""The item with the further averages and the history. Checkpoints of runs without them do not have it."""
DIGESTS = "digests"
"""The item of a checkpoint with its step and the digests of its arrays. Checkpoints of version 0.1 do not have it."""
PAUSES = (0.2, 1.0)
"""Seconds before each further attempt to read a checkpoint: an error of a network file system may pass."""


def manager(folder: Path, max_to_keep: int | None = 3) -> ocp.CheckpointManager:
    """Orbax's manager of the newest `max_to_keep` checkpoints in `folder`. Its context waits for unfinished saves.

    None keeps all. A process may have several managers, of folders with different names.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=max_to_keep,
        enable_async_checkpointing=True,
        multiprocessing_options=ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=folder.name),
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


def reader(folder: Path) -> ocp.CheckpointManager:
    """A read-only manager of the checkpoints in `folder`; a folder that does not exist has no checkpoints."""
    options = ocp.CheckpointManagerOptions(read_only=True, create=False)
    return ocp.CheckpointManager(folder.absolute(), options=options)


def latest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in `folder`, readable or not; None if there is none. One process may ask."""
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(steps, default=None)


def save(checkpoints: ocp.CheckpointManager, state: TrainState, **more: Any) -> None:
    """Starts to write the state in the background; does nothing if there is a checkpoint of its step already.

    `more`, which JSON can store, is recorded with it.
    """
    write(checkpoints, int(state.step), _to_items(state), **more)


def write(checkpoints: ocp.CheckpointManager, step: int, items: dict[str, Any], **more: Any) -> None:
    """Starts to write the items, by name, in the background; does nothing if there is a checkpoint of this step."""
    if step in checkpoints.all_steps():
        return
    record = {"step": step, "arrays": digests(items), **more}
    args: dict[str, Any] = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    checkpoints.save(step, args=ocp.args.Composite(**args, **{DIGESTS: ocp.args.JsonSave(record)}))


def _to_items(state: TrainState) -> dict[str, Any]:
    """The items of the checkpoint of a state. `EMA` is an item of its own, so that sampling reads nothing else.

    The items "ema" and "rest" have the format of version 0.1. "more" is written only if there are other averages or a
    history.
    """
    averages = dict(state.averages)
    ema = averages.pop(EMA)
    rest = {"step": state.step, "params": state.params, "ema": None, "opt_state": state.opt_state}
    more = {"averages": averages, "history": state.history}
    return {"ema": ema, "rest": rest} | ({MORE: more} if averages or state.history is not None else {})


def _from_items(items: Any) -> TrainState:
    rest = {name: value for name, value in items["rest"].items() if name != "ema"}
    more = items.get(MORE, {"averages": {}, "history": None})
    return TrainState(**rest, averages={EMA: items["ema"], **more["averages"]}, history=more["history"])


def restore(checkpoints: ocp.CheckpointManager, like: TrainState) -> TrainState | None:
    """The newest undamaged state, with the shapes and shardings of `like`; None if there is no checkpoint.

    Newer checkpoints, which are damaged, are moved to ``damaged/`` beside the folder, and a warning names them. If all
    are damaged, none is moved, and ValueError is raised with the error of the newest one. The history is None if the
    checkpoint was written without one. With several processes, each of them must call this function; process 0 moves.
    """
    found = _newest(checkpoints, _to_items(like))
    if found is None:
        return None
    items, _, damaged = found
    if damaged:
        _set_aside(checkpoints, damaged)
    return _from_items(items)


def restore_parameters(checkpoints: ocp.CheckpointManager, like: TrainState, weights: str) -> tuple[Any, int] | None:
    """(parameters, step) of the newest undamaged checkpoint; None if there is none. Changes nothing in the folder.

    The parameters are the average `EMA` for `weights` "ema", and those that the optimizer updates for "raw". They have
    the shapes and shardings of `like`. Raises ValueError if there are checkpoints but all are damaged. With several
    processes, each of them must call this function.
    """
    name = {"ema": "ema", "raw": "rest"}[weights]
    found = _newest(checkpoints, {name: _to_items(like)[name]})
    if found is None:
        return None
    return (found[0]["ema"] if weights == "ema" else found[0]["rest"]["params"]), found[1]


def restore_averages(checkpoints: ocp.CheckpointManager, like: TrainState) -> tuple[dict[str, Any], int] | None:
    """(averages by name, without `EMA`, step) of the newest undamaged checkpoint; as `restore_parameters` otherwise."""
    found = _newest(checkpoints, {MORE: _to_items(like)[MORE]})
    return None if found is None else (found[0][MORE]["averages"], found[1])


def _newest(checkpoints: ocp.CheckpointManager, like: dict[str, Any]) -> tuple[dict[str, Any], int, list[int]] | None:
    """(items, step, steps of the newer checkpoints, which are damaged), or None if there are no checkpoints at all."""
    errors: dict[int, str] = {}
    for step in distributed.from_leader(sorted(checkpoints.all_steps(), reverse=True)):
        items, error = read(Path(checkpoints.directory), step, like)
        if not error:
            return items, step, list(errors)
        logger.warning("checkpoint %d cannot be read (%.200s): trying the previous one", step, error)
        errors[step] = error
    if errors:
        newest = next(iter(errors.values()))
        raise ValueError(f"none of the checkpoints in {checkpoints.directory} can be read: {newest:.300s}")
    return None


def read(folder: Path, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(items, error): the items of a checkpoint with the names, shapes and shardings of `like`, and what is wrong.

    The error is empty if there is none in any process. Tries again after each of `PAUSES` while there is an error. With
    several processes, each of them must call this function.
    """
    items, error = _read(folder, step, like)
    for pause in PAUSES:
        if not error:
            break
        time.sleep(pause)
        items, error = _read(folder, step, like)
    return items, error


def _read(folder: Path, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """One attempt of `read`. Orbax's manager is avoided: a process that cannot read would leave the others waiting."""
    items, record, error = {}, None, ""
    handler: Any = ocp.StandardCheckpointHandler()  # whose paths have the type of another library
    try:
        record = record_of(folder / str(step))
        for name, item in like.items():
            if name != MORE or item["averages"] or _has_more(folder / str(step), record):
                items[name] = handler.restore(folder / str(step) / name, args=ocp.args.StandardRestore(item))
    except Exception as exception:  # a damaged file raises one of many exception types
        if isinstance(exception, MemoryError) or "RESOURCE_EXHAUSTED" in str(exception):
            raise
        error = str(exception).strip().split("\n")[0] or type(exception).__name__
    if not distributed.agree(not error):
        return {}, error or "another process cannot read it"
    found = digests(items)  # by all processes, whatever the record of each
    if not distributed.agree(record is None or _matches(record, step, found)):
        return {}, "its numbers are not those that were saved"
    return items, ""


def record_of(folder: Path) -> Any:
    """The record of this checkpoint: its step, digests, and what else was recorded; None for one of version 0.1.

    Raises ValueError or OSError if it cannot be read.
    """
    path = folder / DIGESTS / "metadata"
    if path.parent.exists() or DIGESTS in _item_names(folder):
        return json.loads(path.read_text())
    return None


def _item_names(folder: Path) -> dict[str, Any]:
    """A dictionary with the names of the items of the checkpoint, as Orbax recorded them."""
    return json.loads((folder / "_CHECKPOINT_METADATA").read_text())["item_handlers"]


def _has_more(folder: Path, record: Any) -> bool:
    """Whether the checkpoint was written with the item `MORE`, which may be damaged or lost."""
    recorded = record is not None and any(name.startswith(f"{MORE}/") for name in record["arrays"])
    return recorded or MORE in _item_names(folder)


def _matches(record: Any, step: int, found: dict[str, str]) -> bool:
    """Whether these are the digests of the arrays of their items that are recorded for this step."""
    items = {name.split("/")[0] for name in found}
    try:
        recorded = {name: value for name, value in record["arrays"].items() if name.split("/")[0] in items}
        return record["step"] == step and recorded == found
    except (AttributeError, KeyError, TypeError):  # a damaged record
        return False


def _set_aside(checkpoints: ocp.CheckpointManager, steps: list[int]) -> None:
    """Moves the checkpoints of these steps to ``damaged/``. Raises OSError in all processes if process 0 cannot."""
    failure = None
    try:
        if distributed.is_leader():
            for step in steps:
                _move(Path(checkpoints.directory), step)
    except OSError as error:
        failure = error
    if not distributed.agree(failure is None):
        raise failure or OSError("process 0 could not move a damaged checkpoint")
    checkpoints.reload()


def _move(folder: Path, step: int) -> None:
    target = folder.parent / "damaged" / f"{step}-{time.time_ns()}"
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder / str(step), target)
    logger.warning("the damaged checkpoint %d was moved to %s", step, target)
