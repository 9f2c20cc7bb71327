"""A workdir, the folder of one run, which holds all that sampling and evaluation need.

It contains ``experiment.py`` (a copy), ``experiment.json`` (knobs, versions, commit), ``checkpoints/``,
``metrics.jsonl``, ``events/``, ``samples/``, ``studies/``, ``evaluation.json``, ``rate_distortion.png``, and
``damaged/`` for checkpoints that could not be read.
"""

import importlib.metadata
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

import ddpm_jax
from ddpm_jax.experiment import Experiment, Run, shapes
from ddpm_jax.runs import experiment_files
from ddpm_jax.system.files import write_json
from ddpm_jax.training import checkpoints

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
UNFINISHED = {"experiment.py", "experiment.json.part"}
"""The files of a workdir whose creation was interrupted."""


def prepare(folder: Path, source: Path, knobs: dict[str, Any], **more: Any) -> bool:
    """Creates the workdir of this experiment with these knobs. Returns True if it is new, False if it exists already.

    `more` is recorded with the knobs. Raises ValueError if the folder belongs to another experiment or other knobs, if
    it holds something else, or if a knob cannot be stored as JSON.
    """
    check_knobs(knobs)
    if (folder / "experiment.json").is_file():
        check_owner(folder, source, knobs)
        return False
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file: choose a folder")
    if folder.exists() and {path.name for path in folder.iterdir()} - UNFINISHED:
        raise ValueError(f"--workdir {folder} is not empty and is not a workdir: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / "experiment.py")
    record = {"experiment": source.name, "knobs": knobs, "versions": _versions(), "commit": _commit()}
    write_json(folder / "experiment.json", record | more)  # last: a folder without it is no workdir yet
    return True


def check_owner(folder: Path, source: Path, knobs: dict[str, Any]) -> None:
    """Raises ValueError if the workdir has another experiment or other knobs, FileNotFoundError if it is no workdir."""
    check_workdir(folder)
    if (folder / "experiment.py").read_text() != source.read_text():
        name = json.loads((folder / "experiment.json").read_text())["experiment"]
        raise ValueError(
            f"--workdir {folder} belongs to another experiment, or another version of it: its copy of {name} differs "
            f"from {source}. Choose another folder, or resume with that copy: train {folder / 'experiment.py'}"
        )
    theirs = read_knobs(folder)
    differing = [name for name in knobs if repr(knobs[name]) != repr(theirs.get(name))]
    if differing:
        changes = ", ".join(f"--{name.replace('_', '-')} {theirs.get(name)}, not {knobs[name]}" for name in differing)
        raise ValueError(f"--workdir {folder} belongs to a run with other knobs: {changes}. Choose another folder")


def read_knobs(folder: Path) -> dict[str, Any]:
    """The knobs of the run, as recorded in ``experiment.json``, with lists as tuples."""
    record = json.loads((folder / "experiment.json").read_text())["knobs"]
    return {name: _tuples(value) for name, value in record.items()}


def own_knobs(folder: Path, source: Path, knobs: dict[str, Any]) -> dict[str, Any]:
    """The knobs to resume with: `knobs`, or those of the run if `source` is its copy and `knobs` are the defaults."""
    own = folder / "experiment.py"
    if not (folder / "experiment.json").is_file() or source.resolve() != own.resolve():
        return knobs
    return read_knobs(folder) if knobs == experiment_files.defaults(experiment_files.read(source)) else knobs


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
    return experiment_files.read(folder / "experiment.py")(**read_knobs(folder))


def load(folder: str | Path) -> Run:
    """The run in a workdir: its experiment and the averaged parameters of its newest readable checkpoint.

    Raises FileNotFoundError if `folder` is not a workdir or has no checkpoint yet.
    """
    folder = Path(folder).expanduser()
    experiment = read(folder)
    here = SingleDeviceSharding(jax.devices()[0])  # whatever devices it was trained on
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes(experiment))
    with checkpoints.reader(folder / "checkpoints") as manager:
        found = checkpoints.restore_ema(manager, like)
    if found is None:
        raise FileNotFoundError(f"{folder} has no checkpoint yet: train until the first is saved")
    return Run(experiment, *found)


def weights(folder: Path, step: int) -> str:
    """Whether the parameters of the checkpoint are "ema" or "raw"; a converted run may hold either at step 0."""
    return "ema" if step else json.loads((folder / "experiment.json").read_text()).get("weights", "ema")


def provenance(folder: Path, run: Run, **request: Any) -> dict[str, Any]:
    """What determines a file made from the run: experiment, knobs, checkpoint, and the request."""
    record = json.loads((folder / "experiment.json").read_text())
    return {"experiment": record["experiment"], "knobs": record["knobs"], "checkpoint": run.step, **request}


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
