"""A workdir, the folder of one run, which holds all that sampling and evaluation need.

It contains ``experiment.py`` (a copy, with copies of the modules beside it that it imports), ``experiment.json``
(knobs, versions, commit, data), ``checkpoints/``, ``metrics.jsonl``, ``events/``, ``samples/``, ``studies/``,
``evaluation.json``, ``rate_distortion.png``, and ``damaged/`` for checkpoints that could not be read.
"""

import importlib.metadata
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

import ddpm_jax
from ddpm_jax.experiment import Experiment, Run, shapes
from ddpm_jax.runs import experiment_files
from ddpm_jax.system.files import write_json
from ddpm_jax.system.locks import locked
from ddpm_jax.training import checkpoints, create
from ddpm_jax.training.digests import digest

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
UNFINISHED = {"experiment.py", ".lock", "__pycache__"}
"""The files of a workdir whose creation was interrupted, apart from the modules of its experiment."""
NAMES = {"checkpoints", "events", "samples", "studies", "profile", "damaged", "experiment", "evaluation"}
"""The names that files and folders of a workdir have, without their endings."""


def prepare(folder: Path, source: Path, knobs: dict[str, Any], **more: Any) -> bool:
    """Creates the workdir of this experiment with these knobs. Returns True if it is new, False if it exists already.

    `more` is recorded with the knobs. Raises ValueError if the folder belongs to another experiment or other knobs, if
    it holds something else, or if a knob cannot be stored as JSON.
    """
    check_knobs(knobs)
    if (folder / "experiment.json").is_file():
        check_owner(folder, source, knobs)
        return False
    check_empty(folder, source)
    folder.mkdir(parents=True, exist_ok=True)
    for module in experiment_files.modules(source):
        (shutil.copytree if module.is_dir() else shutil.copyfile)(module, folder / module.name, **_over(module))
    shutil.copyfile(source, folder / "experiment.py")
    record = {"experiment": source.name, "knobs": knobs, "versions": _versions(), "commit": _commit()}
    write_json(folder / "experiment.json", record | more)  # last: a folder without it is no workdir yet
    return True


def _over(module: Path) -> dict[str, Any]:
    """The options for copying a package, in place of one that an interrupted copy has left."""
    return {"dirs_exist_ok": True, "ignore": shutil.ignore_patterns("__pycache__")} if module.is_dir() else {}


def check_empty(folder: Path, source: Path) -> None:
    """Raises ValueError unless `folder` can become the workdir of the experiment file `source`."""
    modules = {module.name for module in experiment_files.modules(source)}
    taken = sorted(name for name in modules if name.removesuffix(".py") in NAMES)
    if taken:
        raise ValueError(f"{source} imports {taken[0]}, a name that a workdir uses itself: rename this module")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file: choose a folder")
    present = {path.name for path in folder.iterdir() if path.suffix != ".part"} if folder.exists() else set()
    if present - UNFINISHED - modules:
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
        for left in folder.glob("*.part"):  # by a process that was killed while it wrote
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
    pairs = [(source, folder / "experiment.py")]
    pairs += [(module, folder / module.name) for module in experiment_files.modules(source)]
    for ours, copy in pairs:
        if not _equal(ours, copy):
            name = json.loads((folder / "experiment.json").read_text())["experiment"]
            raise ValueError(
                f"--workdir {folder} belongs to another experiment, or another version of it: its copy of "
                f"{name if ours == source else ours.name} differs from {ours}. {ways_out(folder)}"
            )


def _equal(ours: Path, copy: Path) -> bool:
    """Whether two files, or the Python files of two folders, have the same content."""
    if ours.is_dir() and copy.is_dir():
        names = {path.relative_to(root) for root in (ours, copy) for path in root.rglob("*.py")}
        return all(_equal(ours / name, copy / name) for name in names)
    return ours.is_file() and copy.is_file() and ours.read_bytes() == copy.read_bytes()


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
    record = json.loads((folder / "experiment.json").read_text())["knobs"]
    return {name: _tuples(value) for name, value in record.items()}


def knobs_of(experiment_file: Path) -> dict[str, Any]:
    """The knobs of the run whose workdir has this experiment file; empty for a file elsewhere."""
    in_workdir = experiment_file.name == "experiment.py" and (experiment_file.parent / "experiment.json").is_file()
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


def check_workdir(folder: Path) -> None:
    """Raises FileNotFoundError if `folder` is no workdir."""
    if not (folder / "experiment.json").is_file():
        raise FileNotFoundError(f"{folder} is not a workdir: ddpm-jax train EXPERIMENT --workdir {folder} creates one")


def read(folder: Path) -> Experiment:
    """The experiment of a workdir. Raises FileNotFoundError if `folder` is not a workdir."""
    check_workdir(folder)
    return experiment_files.build(experiment_files.read(folder / "experiment.py"), read_knobs(folder))


def load(folder: str | Path, weights: str = "ema") -> Run:
    """The run in a workdir: its experiment and the parameters of its newest readable checkpoint.

    `weights` is "ema" for the averaged parameters, "raw" for those that the optimizer updates. Raises FileNotFoundError
    if `folder` is not a workdir or has no checkpoint yet.
    """
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be ema or raw, got {weights!r}")
    folder = Path(folder).expanduser()
    experiment = read(folder)
    here = SingleDeviceSharding(jax.devices()[0])  # whatever devices it was trained on
    state = jax.eval_shape(lambda params: create(params, experiment.optimizer), shapes(experiment))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)
    with checkpoints.reader(folder / "checkpoints") as manager:
        found = checkpoints.restore_parameters(manager, like, weights)
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet: train until the first is saved")
    return Run(experiment, *found)


def weights_in(folder: Path, step: int, weights: str) -> str:
    """Whether parameters loaded as `weights` are "ema" or "raw"; a converted run may hold either at step 0."""
    return weights if step else json.loads((folder / "experiment.json").read_text()).get("weights", weights)


def provenance(folder: Path, run: Run, **request: Any) -> dict[str, Any]:
    """What determines a file made from the run: experiment, knobs, checkpoint, and the request.

    The digests of the program and of the parameters are part of it: a name and a step do not determine them.
    """
    record = json.loads((folder / "experiment.json").read_text())
    return {
        "experiment": record["experiment"],
        "program": experiment_files.digest(folder / "experiment.py"),
        "knobs": record["knobs"],
        "checkpoint": run.step,
        "parameters": digest(run.params),
        **request,
    }


def _versions() -> dict[str, str | None]:
    return {"ddpm_jax": ddpm_jax.__version__} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the library's own source tree; None if it is installed elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
