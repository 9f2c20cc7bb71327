"""A workdir: the folder of one run, which is all that sampling and evaluation need.

It holds ``experiment.py`` (a copy), ``experiment.json`` (knobs, versions, commit), ``checkpoints/``, ``metrics.jsonl``,
``events/``, ``samples/``, ``studies/``, ``evaluation.json``, ``rate_distortion.png``, and ``damaged/`` where one was.
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
from ddpm_jax import recipes
from ddpm_jax.experiment import Experiment, Run, shapes
from ddpm_jax.files import whole_file
from ddpm_jax.training import checkpoints

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
UNFINISHED = {"experiment.py", "experiment.json.part"}
"""What a workdir holds whose making was interrupted."""


def prepare(folder: Path, recipe: Path, knobs: dict[str, Any], **more: Any) -> bool:
    """Makes `folder` the workdir of this experiment and knobs; True if it is new, False if the run goes on there.

    `more` is kept with them. Raises ValueError if it belongs to another experiment or other knobs, is a folder of
    something else, or if a knob is nothing that JSON can keep.
    """
    check_knobs(knobs)
    if (folder / "experiment.json").is_file():
        check_owner(folder, recipe, knobs)
        return False
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file: choose a folder")
    if folder.exists() and {path.name for path in folder.iterdir()} - UNFINISHED:
        raise ValueError(f"--workdir {folder} is not empty and holds no run: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe, folder / "experiment.py")
    record = {"experiment": recipe.name, "knobs": knobs, "versions": _versions(), "commit": _commit()}
    write_json(folder / "experiment.json", record | more)  # last: a folder without it is no workdir yet
    return True


def check_owner(folder: Path, recipe: Path, knobs: dict[str, Any]) -> None:
    """Raises ValueError if the workdir is that of another experiment or other knobs, FileNotFoundError if none."""
    check_workdir(folder)
    if (folder / "experiment.py").read_text() != recipe.read_text():
        name = json.loads((folder / "experiment.json").read_text())["experiment"]
        raise ValueError(
            f"--workdir {folder} belongs to another experiment, or another version of it: its copy of {name} differs "
            f"from {recipe}. Choose another folder, or go on with that copy: train {folder / 'experiment.py'}"
        )
    theirs = read_knobs(folder)
    differing = [name for name in knobs if repr(knobs[name]) != repr(theirs.get(name))]
    if differing:
        told = ", ".join(f"--{name.replace('_', '-')} {theirs.get(name)}, not {knobs[name]}" for name in differing)
        raise ValueError(f"--workdir {folder} belongs to a run with other knobs: {told}. Choose another folder")


def read_knobs(folder: Path) -> dict[str, Any]:
    """The knobs the run was started with; lists are tuples again."""
    record = json.loads((folder / "experiment.json").read_text())["knobs"]
    return {name: _tuples(value) for name, value in record.items()}


def own_knobs(folder: Path, recipe: Path, knobs: dict[str, Any]) -> dict[str, Any]:
    """The knobs to go on with: those the run was started with, where it is named by its own copy and none is given."""
    own = folder / "experiment.py"
    if not (folder / "experiment.json").is_file() or recipe.resolve() != own.resolve():
        return knobs
    return read_knobs(folder) if knobs == recipes.defaults(recipes.read(recipe)) else knobs


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def check_knobs(knobs: dict[str, Any]) -> None:
    """Raises ValueError for a knob that JSON would give back as something else."""
    for name, value in knobs.items():
        kept = _tuples(json.loads(json.dumps(value, default=str)))
        if repr(kept) != repr(value):  # by text: nan is like nan, and 1 not like 1.0 or True
            raise ValueError(
                f"the knob {name} = {value!r} cannot be kept with the run: a knob is a number, a string, "
                "a truth value, None or a tuple of such"
            )


def check_workdir(folder: Path) -> None:
    """Raises FileNotFoundError if `folder` is no workdir."""
    if not (folder / "experiment.json").is_file():
        raise FileNotFoundError(f"{folder} is not a workdir: ddpm-jax train EXPERIMENT --workdir {folder} makes one")


def read(folder: Path) -> Experiment:
    """The experiment of a workdir. Raises FileNotFoundError if `folder` is none."""
    check_workdir(folder)
    return recipes.read(folder / "experiment.py")(**read_knobs(folder))


def load(folder: str | Path) -> Run:
    """The run in a workdir: its experiment and the averaged parameters of its newest readable checkpoint.

    Raises FileNotFoundError if `folder` is no workdir or holds no checkpoint yet.
    """
    folder = Path(folder).expanduser()
    experiment = read(folder)
    here = SingleDeviceSharding(jax.devices()[0])  # wherever it was trained
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes(experiment))
    with checkpoints.reader(folder / "checkpoints") as manager:
        found = checkpoints.restore_ema(manager, like)
    if found is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint yet: let its training reach one")
    return Run(experiment, *found)


def weights(folder: Path, step: int) -> str:
    """Which parameters a checkpoint's are: "ema", or what a converted run of other origin was said to hold."""
    return "ema" if step else json.loads((folder / "experiment.json").read_text()).get("weights", "ema")


def provenance(folder: Path, run: Run, **asked: Any) -> dict[str, Any]:
    """What decides a file made from the run: experiment, knobs, checkpoint, and what was asked for."""
    record = json.loads((folder / "experiment.json").read_text())
    return {"experiment": record["experiment"], "knobs": record["knobs"], "checkpoint": run.step, **asked}


def write_json(path: Path, content: Any) -> None:
    """Written whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")


def _versions() -> dict[str, str | None]:
    return {"ddpm_jax": ddpm_jax.__version__} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree the library runs from, if it is one and not some project it is installed in."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
