"""How a run begins and what may change when it is resumed: its length, its periods, and where its data lie."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.experiment import Experiment, Params, shapes
from ddpm_jax.runs import models, workdir
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import TrainRequest
from ddpm_jax.sampling import Run
from ddpm_jax.system.files import write_json
from ddpm_jax.training import checkpoints, distributed

PERIODS = ("log_every", "sample_every", "save_every", "evaluate_every")
"""Knobs on which no step depends."""
OF_DATA = ("path", "folder_of_images", "data_dir", "on_bad_picture")
"""Knobs on which only the data depend; their digest decides whether they are the same."""
PROBES = 64
"""The number of past steps at which the optimizers of two lengths of a run are compared."""


@contextmanager
def opened(
    request: TrainRequest, source: Path, knobs: dict[str, Any], experiment: Experiment, reporter: Reporter
) -> Iterator[None]:
    """Holds the workdir for this run alone, after it was created or found to belong to the run.

    Process 0 holds it; every process must call this function. Raises ValueError in all of them if the workdir belongs
    to another run, or is in use, or if the data have changed or are not the same for all processes.
    """
    data = data_identity(experiment.data, "train")
    if not distributed.is_same(data["digest"]):
        raise ValueError(f"the processes have different data ({data['found']} here): give all of them the same files")
    with ExitStack() as stack:
        with distributed.all_or_none(f"process 0 cannot use --workdir {request.workdir}"):
            if distributed.is_leader():
                stack.enter_context(_held(request, source, knobs, experiment, data, reporter))
        yield


@contextmanager
def _held(
    request: TrainRequest,
    source: Path,
    knobs: dict[str, Any],
    experiment: Experiment,
    data: dict[str, str],
    reporter: Reporter,
) -> Iterator[None]:
    folder, origin = request.workdir, origin_of(request)
    with workdir.held(folder, source):
        if workdir.is_workdir(folder):
            workdir.check_program(folder, source)
            check_origin(folder, origin)
            changes = workdir.differing(folder, knobs)
            check_knobs(folder, changes, experiment)
            check_data(folder, data, request.data_changed)
            adopt(folder, knobs, changes, data, reporter)
        new = workdir.prepare(folder, source, knobs, data=data, **({} if origin is None else {"from": origin}))
        reporter.line(f"{'training' if new else 'resuming'} in {folder}")
        yield


def settled(knobs: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """The knobs with the number of classes that was counted in the data, if `num_classes` leaves it open.

    A recorded number lets a run be sampled where its data are not at hand.
    """
    counted = experiment.num_classes is not None and "num_classes" in knobs
    return knobs | {"num_classes": experiment.num_classes} if counted else knobs


def origin_of(request: TrainRequest) -> dict[str, Any] | None:
    """Where the parameters at step 0 come from, as recorded with the run; None for random ones.

    Raises ValueError for --weights or --checkpoint without --from.
    """
    if request.start_from is None:
        for name, value, usual in (("weights", request.weights, "ema"), ("checkpoint", request.checkpoint, "newest")):
            if value != usual:
                raise ValueError(f"--{name} {value}: applies with --from, the run to start from")
        return None
    origin = {"workdir": models.named(request.start_from), "weights": request.weights}
    return origin if request.checkpoint == "newest" else origin | {"checkpoint": request.checkpoint}


def check_origin(folder: Path, origin: dict[str, Any] | None) -> None:
    """Raises ValueError if the run started from other parameters than `origin`, which may be left out."""
    recorded = workdir.read_record(folder).get("from")
    if origin is not None and origin != recorded:
        theirs = "random parameters"
        if recorded is not None:
            which = f"{recorded.get('checkpoint', 'newest')} checkpoint"
            theirs = f"the {recorded['weights']} weights of {recorded['workdir']}, {which}"
        raise ValueError(f"--workdir {folder} belongs to a run that started from {theirs}: choose another folder")


def start(request: TrainRequest, experiment: Experiment) -> Params | None:
    """The parameters to start from: those of --from, or of the origin that the run recorded; None for random ones.

    Raises ValueError if they do not fit the experiment. Reads nothing if the workdir has a checkpoint already.
    """
    origin = origin_of(request)
    if origin is None and workdir.is_workdir(request.workdir):
        origin = workdir.read_record(request.workdir).get("from")
    if origin is None or latest_step(request.workdir) is not None:
        return None
    folder = models.shipped().get(origin["workdir"], Path(origin["workdir"]))  # of folders the whole path is recorded
    run = workdir.load(folder, origin["weights"], origin.get("checkpoint", "newest"))
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
                f"network as there, which are in {models.found(Path(name)) / 'experiment.json'}"
            )


def check_knobs(folder: Path, changes: dict[str, tuple[Any, Any]], experiment: Experiment) -> None:
    """Raises ValueError for changed knobs on which a step that the run has taken depends, or a length below them."""
    refused = {name: values for name, values in changes.items() if name not in (*PERIODS, *OF_DATA, "num_steps")}
    workdir.refuse(folder, refused)
    if "num_steps" in changes:
        check_length(folder, workdir.read(folder), experiment, latest_step(folder) or 0)


def check_data(folder: Path, data: dict[str, str], changed: bool) -> None:
    """Raises ValueError if the run took steps with data other than `data`, unless it is stated that they `changed`."""
    recorded = workdir.read_record(folder).get("data", data)
    if recorded["digest"] != data["digest"] and not changed and latest_step(folder) is not None:
        raise ValueError(
            f"the data have changed since the run in {folder} began (then: {recorded['found']}; now: {data['found']}), "
            "so its examples would come in another order: put the files back, or resume with --data-changed"
        )


def adopt(
    folder: Path, knobs: dict[str, Any], changes: dict[str, tuple[Any, Any]], data: dict[str, str], reporter: Reporter
) -> None:
    """Records the knobs and the data with which the run is resumed, and, with their step, those that it had before."""
    record, step = workdir.read_record(folder), latest_step(folder) or 0
    old: dict[str, Any] = {"step": step}
    if changes:
        old["knobs"] = {name: theirs for name, (theirs, _) in changes.items()}
        reporter.line(f"changed at step {step}: {workdir.described(changes)}")
    if record.get("data", data)["digest"] != data["digest"]:
        old["data"] = record["data"]
        reporter.line(f"changed at step {step}: the data, now {data['found']}")
    new = record | {"knobs": record["knobs"] | knobs, "data": data}
    if len(old) > 1:
        new["changes"] = [*record.get("changes", []), old]
    if "data" not in record or len(old) > 1:
        write_json(folder / "experiment.json", new)


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
    return checkpoints.latest_step(folder / "checkpoints")
