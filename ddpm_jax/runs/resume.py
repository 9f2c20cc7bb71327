"""How a run begins and what may change when it is resumed: its length, its periods, and where its data lie."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.experiment import Experiment, Params, Run, shapes
from ddpm_jax.runs import workdir
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import TrainRequest
from ddpm_jax.system.files import write_json
from ddpm_jax.training import checkpoints

PERIODS = ("log_every", "sample_every", "save_every")
"""Knobs on which no step depends."""
OF_DATA = ("path", "folder_of_images", "data_dir", "on_bad_picture")
"""Knobs on which only the data depend; their digest decides whether they are the same."""
PROBES = 64
"""The number of past steps at which the optimizers of two lengths of a run are compared."""


@contextmanager
def opened(
    request: TrainRequest, source: Path, knobs: dict[str, Any], experiment: Experiment, reporter: Reporter
) -> Iterator[None]:
    """Holds the workdir for this process alone, after it was created or found to belong to this run.

    Raises ValueError if it belongs to another run, to another process, or if the data have changed.
    """
    folder, origin = request.workdir, origin_of(request)
    data = data_identity(experiment.data, "train")
    with workdir.held(folder, source):
        if (folder / "experiment.json").is_file():
            workdir.check_program(folder, source)
            check_origin(folder, origin)
            check_data(folder, data, request.data_changed)
            adopt(folder, knobs, experiment, reporter)
        new = workdir.prepare(folder, source, knobs, data=data, **({} if origin is None else {"from": origin}))
        reporter.line(f"{'training' if new else 'resuming'} in {folder}")
        yield


def settled(knobs: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """The knobs with the number of classes that was counted in the data, if `num_classes` leaves it open.

    A recorded number lets a run be sampled where its data are not at hand.
    """
    counted = experiment.num_classes is not None and "num_classes" in knobs
    return knobs | {"num_classes": experiment.num_classes} if counted else knobs


def origin_of(request: TrainRequest) -> dict[str, str] | None:
    """Where the parameters at step 0 come from, as recorded with the run; None for random ones."""
    if request.start_from is None:
        return None
    return {"workdir": str(request.start_from.absolute()), "weights": request.weights}


def check_origin(folder: Path, origin: dict[str, str] | None) -> None:
    """Raises ValueError if the run started from other parameters than `origin`, which may be left out."""
    recorded = _record(folder).get("from")
    if origin is not None and origin != recorded:
        theirs = (
            "random parameters" if recorded is None else f"the {recorded['weights']} weights of {recorded['workdir']}"
        )
        raise ValueError(f"--workdir {folder} belongs to a run that started from {theirs}: choose another folder")


def start(request: TrainRequest, experiment: Experiment) -> Params | None:
    """The parameters to start from: those of --from, or of the origin that the run recorded; None for random ones.

    Raises ValueError if they do not fit the experiment. Reads nothing if the workdir has a checkpoint already.
    """
    recorded = _record(request.workdir).get("from") if (request.workdir / "experiment.json").is_file() else None
    origin = origin_of(request) or recorded
    if origin is None or latest_step(request.workdir) is not None:
        return None
    run = workdir.load(origin["workdir"], origin["weights"])
    check_fits(run, experiment, origin["workdir"])
    return run.params


def check_fits(run: Run, experiment: Experiment, name: str) -> None:
    """Raises ValueError naming the first parameter in which the network of the run differs from the experiment's."""
    there, here = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree.leaves_with_path, (run.params, shapes(experiment)))
    )
    for each in sorted(there.keys() | here.keys()):
        if there.get(each) != here.get(each):
            theirs, ours = (shape.get(each, "absent") for shape in (there, here))
            raise ValueError(
                f"--from {name}: the parameter {each} is {theirs} there and {ours} here: choose the knobs of the "
                f"network as there, or start from its experiment: train {name}/experiment.py"
            )


def check_data(folder: Path, data: dict[str, str], changed: bool) -> None:
    """Raises ValueError if the data differ from those that the run recorded, and it has taken steps with them.

    With `changed` records the new ones instead.
    """
    record = _record(folder)
    recorded = record.get("data", data)
    if recorded["digest"] != data["digest"] and not changed and latest_step(folder) is not None:
        raise ValueError(
            f"the data have changed since the run in {folder} began (then: {recorded['found']}; now: {data['found']}), "
            "so its examples would come in another order: put the files back, or resume with --data-changed"
        )
    if record.get("data") != data:
        write_json(folder / "experiment.json", record | {"data": data})


def adopt(folder: Path, knobs: dict[str, Any], experiment: Experiment, reporter: Reporter) -> None:
    """Records knobs that differ from those of the run, if no step that it took depends on them.

    Raises ValueError for other knobs, and for a length below the steps taken.
    """
    changes = workdir.differing(folder, knobs)
    if not changes:
        return
    step = latest_step(folder) or 0
    refused = {name: values for name, values in changes.items() if name not in (*PERIODS, *OF_DATA, "num_steps")}
    workdir.refuse(folder, refused)
    if "num_steps" in changes:
        check_length(folder, workdir.read(folder), experiment, step)
    record = _record(folder)
    old = {name: theirs for name, (theirs, _) in changes.items()}
    changed = [*record.get("changes", []), {"step": step, "knobs": old}]
    write_json(folder / "experiment.json", record | {"knobs": record["knobs"] | knobs, "changes": changed})
    reporter.line(f"changed at step {step}: {workdir.described(changes)}")


def check_length(folder: Path, old: Experiment, new: Experiment, step: int) -> None:
    """Raises ValueError unless `new` differs from `old` in no step up to `step`, and has more steps than that."""
    if new.num_steps < step:
        raise ValueError(f"--num-steps {new.num_steps}: the run in {folder} has taken {step} steps already: give more")
    past = np.unique(np.linspace(0, max(step - 1, 0), PROBES).astype(np.int32)) if step else np.zeros(0, np.int32)
    if not np.array_equal(_effects(old, past), _effects(new, past)):
        raise ValueError(
            f"--num-steps {old.num_steps}, not {new.num_steps}: the learning rate of this experiment depends on the "
            f"length of the run, so the {step} steps taken would differ. {workdir.ways_out(folder)}"
        )


def _effects(experiment: Experiment, steps: np.ndarray) -> np.ndarray:
    """What the optimizer makes of a gradient of ones, and the decay of the average, at each of these steps."""
    params = jax.tree.map(lambda _: jnp.ones(()), shapes(experiment))
    initial = experiment.optimizer.init(params)

    def at(step):
        counted = jax.tree.map(lambda x: step.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.integer) else x, initial)
        updates, _ = experiment.optimizer.update(params, counted, params)
        decay = experiment.ema_decay(step) if callable(experiment.ema_decay) else experiment.ema_decay
        return jnp.stack([jnp.asarray(decay, jnp.float32), *jax.tree.leaves(updates)])

    return np.asarray(jax.jit(jax.vmap(at))(steps)) if steps.size else np.zeros(0)


def latest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint in the workdir, readable or not; None if there is none."""
    with checkpoints.reader(folder / "checkpoints") as manager:
        return manager.latest_step()


def _record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "experiment.json").read_text())
