"""A workdir, the folder of one run, which holds all that sampling and evaluation need.

It contains ``experiment.py`` (a copy, with copies of the modules beside it that it imports), ``experiment.json``
(knobs, versions, commit, data), ``checkpoints/``, ``best/`` (a checkpoint), ``averages/`` (snapshots),
``metrics.jsonl``, ``events/``, ``samples/``, ``studies/``, ``evaluation.json``, ``evaluation.png`` (by step),
``rate_distortion.png``, ``statistics.npz`` (errors at every t), and ``damaged/`` for unreadable checkpoints.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from ddpm_jax.experiment import Experiment, Params, first_state, shapes
from ddpm_jax.runs import experiment_files, models
from ddpm_jax.runs.versions import made_with
from ddpm_jax.sampling import Run
from ddpm_jax.system.files import read_json, whole_file, write_json
from ddpm_jax.system.locks import locked
from ddpm_jax.training import TrainState, checkpoints, gamma_of, snapshots
from ddpm_jax.training.digests import digest

UNFINISHED = re.compile(r"\.lock|__pycache__|(.*\.py|experiment\.json)\.[0-9a-f]{8}\.part")
"""The names in a workdir whose creation was interrupted, apart from the experiment file and its modules."""
NAMES = {"checkpoints", "best", "averages", "events", "samples", "studies", "profile", "damaged"}
NAMES |= {"experiment", "evaluation"}
"""The names that files and folders of a workdir have, without their endings."""
CHECKPOINTS = {
    "newest": ("checkpoints", "checkpoint yet: train until the first is saved"),
    "best": ("best", "best checkpoint: train --keep-best bpd or frechet keeps one, --checkpoint newest reads the last"),
}
"""The folder of a checkpoint by its name, and what to do if there is none."""


def prepare(folder: Path, source: Path, knobs: dict[str, Any], **more: Any) -> bool:
    """Creates the workdir of this experiment with these knobs. Returns True if it is new, False if it exists already.

    `more` is recorded with the knobs. Raises ValueError if the folder belongs to another experiment or other knobs, if
    it holds something else, or if a knob cannot be stored as JSON.
    """
    check_knobs(knobs)
    if is_workdir(folder):
        check_owner(folder, source, knobs)
        return False
    check_empty(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    for original, copy in copies(source, folder).items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(copy) as part:
            shutil.copyfile(original, part)
    record = {"experiment": source.name, "knobs": knobs} | made_with()
    write_json(folder / "experiment.json", record | more)  # last: a folder without it is no workdir yet
    return True


def copies(source: Path, folder: Path) -> dict[Path, Path]:
    """The copies in the workdir of an experiment file and of the Python files that it imports, by their originals."""
    files = [file for module in experiment_files.modules(source) for file in experiment_files.python_files(module)]
    return {file: folder / file.relative_to(source.parent) for file in files} | {source: folder / "experiment.py"}


def check_empty(folder: Path, source: Path) -> None:
    """Raises ValueError unless `folder` can become the workdir of the experiment file `source`."""
    modules = {module.name for module in experiment_files.modules(source)}
    taken = sorted(name for name in modules if name.removesuffix(".py") in NAMES)
    if taken:
        raise ValueError(f"{source} imports {taken[0]}, a name that a workdir uses itself: rename this module")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file: choose a folder")
    others = {path.name for path in folder.glob("*") if not UNFINISHED.fullmatch(path.name)}
    # files of the user may have these names too: only equal ones are left by an interrupted creation
    equal = all(not copy.exists() or _equal(file, copy) for file, copy in copies(source, folder).items())
    if others - modules - {"experiment.py"} or not equal:
        raise ValueError(f"--workdir {folder} is not empty and is not a workdir: choose another folder")


@contextmanager
def held(folder: Path, source: Path) -> Iterator[None]:
    """Holds the lock of the workdir, whose folder is created if it does not exist.

    Raises ValueError if another process trains there, or if the folder holds something else.
    """
    if not (folder / "experiment.json").is_file():
        check_empty(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        for left in folder.glob("experiment.json.*.part"):  # by a process that was killed while it wrote
            left.unlink()
        yield


def check_owner(folder: Path, source: Path, knobs: dict[str, Any]) -> None:
    """Raises ValueError if the workdir has another experiment or other knobs, FileNotFoundError if it is no workdir."""
    check_program(folder, source)
    refuse(folder, differing(folder, knobs))


def refuse(folder: Path, changes: dict[str, tuple[Any, Any]]) -> None:
    """Raises ValueError if there are changes, which are a result of `differing`."""
    if changes:
        knobs = described(changes)
        raise ValueError(f"--workdir {folder} belongs to a run with other knobs: {knobs}. {ways_out(folder)}")


def check_program(folder: Path, source: Path) -> None:
    """Raises ValueError if the workdir has another experiment, FileNotFoundError if it is no workdir."""
    check_workdir(folder)
    for ours, copy in copies(source, folder).items():
        if not _equal(ours, copy):
            name = read_record(folder)["experiment"] if ours == source else copy.relative_to(folder)
            raise ValueError(
                f"--workdir {folder} belongs to another experiment, or another version of it: its copy of {name} "
                f"differs from {ours}. {ways_out(folder)}"
            )


def _equal(ours: Path, copy: Path) -> bool:
    return copy.is_file() and ours.read_bytes() == copy.read_bytes()


def ways_out(folder: Path) -> str:
    """What to do instead of resuming this workdir with another experiment or other knobs."""
    return (
        f"Choose another folder (with --from {folder} to start from its parameters), or resume the run with its own "
        f"experiment and knobs: train {folder / 'experiment.py'} --workdir {folder}"
    )


def differing(folder: Path, knobs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The knobs that differ from those of the run: (its value, the value given) by name."""
    theirs = read_knobs(folder)
    names = [name for name in knobs if repr(knobs[name]) != repr(theirs.get(name))]
    return {name: (theirs.get(name), knobs[name]) for name in names}


def described(changes: dict[str, tuple[Any, Any]]) -> str:
    """The result of `differing` in words: ``--width 8, not 16``, ..."""
    options = {f"--{name.replace('_', '-')}": values for name, values in changes.items()}
    return ", ".join(f"{option} {theirs}, not {ours}" for option, (theirs, ours) in options.items())


def read_knobs(folder: Path) -> dict[str, Any]:
    """The knobs of the run, as recorded in ``experiment.json``, with lists as tuples."""
    return {name: _tuples(value) for name, value in read_record(folder)["knobs"].items()}


def read_record(folder: Path) -> dict[str, Any]:
    """The content of ``experiment.json``. Raises ValueError if it is damaged."""
    record = read_json(folder / "experiment.json")
    if not isinstance(record, dict) or not {"experiment", "knobs"} <= record.keys():
        raise ValueError(f"{folder / 'experiment.json'} is damaged: it has no experiment and knobs")
    return record


def knobs_of(experiment_file: Path) -> dict[str, Any]:
    """The knobs of the run whose workdir has this experiment file; empty for a file elsewhere."""
    in_workdir = experiment_file.name == "experiment.py" and is_workdir(experiment_file.parent)
    return read_knobs(experiment_file.parent) if in_workdir else {}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def check_knobs(knobs: dict[str, Any]) -> None:
    """Raises ValueError for a knob that JSON cannot store unchanged."""
    for name, value in knobs.items():
        kept = _tuples(json.loads(json.dumps(value, default=str)))
        if repr(kept) != repr(value):  # as text: nan equals nan, and 1 differs from 1.0 and True
            raise ValueError(
                f"the knob {name} = {value!r} cannot be stored with the run: a knob is a number, a string, "
                "a bool, None or a tuple of these"
            )


def is_workdir(folder: Path) -> bool:
    """Whether this is the folder of a run."""
    return (folder / "experiment.json").is_file()


def check_workdir(folder: Path) -> None:
    """Raises FileNotFoundError if `folder` is no workdir."""
    if not is_workdir(folder):
        raise FileNotFoundError(models.no_run(folder))


def find(folder: Path) -> Path:
    """The folder of a run: this workdir or model, or if it does not exist, the shipped model of this name.

    Raises FileNotFoundError if there is neither.
    """
    found = models.found(folder)
    check_workdir(found)
    return found


def read(folder: Path) -> Experiment:
    """The experiment of a run. Raises FileNotFoundError if `find` does."""
    folder = find(folder)
    knobs = read_knobs(folder)
    return experiment_files.build(experiment_files.read(models.program(folder, read_record(folder))), knobs)


def load(folder: str | Path, weights: str | float = "ema", checkpoint: str = "newest") -> Run:
    """The run in a workdir, or a model that comes with the library: its experiment and its trained parameters.

    `folder` is a workdir or the folder of a model; where there is no such folder, the name of a model that comes with
    the library, such as "digits". `checkpoint` is "newest" (the newest one that can be read), or "best" for a run that
    was trained with ``--keep-best``.

    `weights` is "ema" for the averaged parameters, "raw" for those that the optimizer updates, or the relative length
    of an average that is computed from the `power_averages` of the experiment, such as 0.1. Raises FileNotFoundError if
    there is no run or no such checkpoint yet, ValueError for an average that cannot be computed.
    """
    if isinstance(weights, str) and weights not in ("ema", "raw"):
        raise ValueError(f"weights must be ema, raw or the relative length of an average, got {weights!r}")
    if checkpoint not in CHECKPOINTS:
        raise ValueError(f"checkpoint must be newest or best, got {checkpoint!r}")
    name, way_out = CHECKPOINTS[checkpoint]
    folder = find(Path(folder).expanduser())
    experiment = read(folder)
    if models.is_model(folder):
        if checkpoint != "newest":
            raise ValueError(f"--checkpoint {checkpoint}: {folder} is a model, without checkpoints: leave it out")
        return Run(experiment, *models.parameters(folder, read_record(folder), shapes(experiment), weights))
    here = SingleDeviceSharding(jax.local_devices()[0])  # whatever devices it was trained on
    state = jax.eval_shape(lambda params: first_state(experiment, params), shapes(experiment))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)
    with checkpoints.reader(folder / name) as manager:
        if isinstance(weights, str):
            found = checkpoints.restore_parameters(manager, like, weights)
        else:
            found = _power_average(folder, manager, experiment, like, weights)
    if found is None:
        raise FileNotFoundError(f"{folder} has no {way_out}")
    return Run(experiment, *found)


def _power_average(
    folder: Path, manager: Any, experiment: Experiment, like: TrainState, length: float
) -> tuple[Params, int] | None:
    """(parameters, step) of the average of this relative length; None if there is no checkpoint."""
    lengths = experiment.power_averages
    try:
        gamma_of(length)
        if not lengths:
            raise ValueError(f"the run in {folder} keeps no averages for it: train with --power-ema, or use ema or raw")
        found = checkpoints.restore_averages(manager, like)
        return found and (snapshots.average(folder / "averages", found[0], lengths, found[1], length), found[1])
    except ValueError as error:
        raise ValueError(f"--weights {length:g}: {error}") from None


def marked(weights: str | float) -> str:
    """The part of a file name for these weights: "" for "ema", "_raw", or such as "_ema0.1"."""
    if isinstance(weights, str):
        return "" if weights == "ema" else f"_{weights}"
    return f"_ema{weights:g}"


def weights_in(folder: Path, step: int, weights: str | float) -> str | float:
    """What parameters loaded as `weights` are: "ema", "raw" or a length; models, and converted runs, record it."""
    folder = find(folder)
    recorded = step == 0 or models.is_model(folder)
    return read_record(folder).get("weights", weights) if recorded else weights


def provenance(folder: Path, run: Run, **request: Any) -> dict[str, Any]:
    """What determines a file made from the run: experiment, knobs, checkpoint, and the request.

    The digests of the program and of the parameters are part of it: a name and a step do not determine them.
    """
    folder = find(folder)
    record = read_record(folder)
    return {
        "experiment": record["experiment"],
        "program": experiment_files.digest(models.program(folder, record)),
        "knobs": record["knobs"],
        "checkpoint": run.step,
        "parameters": digest(run.params),
        **request,
    }
