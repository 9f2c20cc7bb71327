"""A workdir: the folder of one run, which is all that sampling and evaluation need.

It holds ``experiment.py`` (a copy), ``experiment.json`` (knobs, versions, commit), ``checkpoints/``, ``metrics.jsonl``,
``events/``, ``samples/`` and ``evaluation.json``.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax

from ddpm_jax import recipes
from ddpm_jax.experiment import Experiment, Run, init_fn
from ddpm_jax.training import checkpoints

PACKAGES = ("ddpm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def prepare(folder: Path, recipe: Path, knobs: dict[str, Any]) -> bool:
    """Makes `folder` the workdir of this experiment and knobs; True if it is new, False if the run goes on there.

    Raises ValueError if it belongs to another experiment or other knobs or is a folder of something else.
    """
    if (folder / "experiment.json").is_file():
        _check_owner(folder, recipe, knobs)
        return False
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--workdir {folder} is a file: choose a folder")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--workdir {folder} is not empty and holds no run: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe, folder / "experiment.py")
    record = {"experiment": recipe.name, "knobs": knobs, "versions": _versions(), "commit": _commit()}
    write_json(folder / "experiment.json", record)  # last: a folder without it is no workdir yet
    return True


def _check_owner(folder: Path, recipe: Path, knobs: dict[str, Any]) -> None:
    if (folder / "experiment.py").read_text() != recipe.read_text():
        name = json.loads((folder / "experiment.json").read_text())["experiment"]
        raise ValueError(
            f"--workdir {folder} belongs to another experiment, or another version of it: its copy of {name} differs "
            f"from {recipe}. Choose another folder, or go on with that copy: train {folder / 'experiment.py'}"
        )
    theirs = read_knobs(folder)
    differing = [name for name in knobs if _plain(knobs[name]) != _plain(theirs.get(name))]
    if differing:
        told = ", ".join(f"--{name.replace('_', '-')} {theirs.get(name)}, not {knobs[name]}" for name in differing)
        raise ValueError(f"--workdir {folder} belongs to a run with other knobs: {told}. Choose another folder")


def read_knobs(folder: Path) -> dict[str, Any]:
    """The knobs the run was started with; lists are tuples again."""
    record = json.loads((folder / "experiment.json").read_text())["knobs"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def read(folder: Path) -> Experiment:
    """The experiment of a workdir. Raises FileNotFoundError if `folder` is none."""
    if not (folder / "experiment.json").is_file():
        raise FileNotFoundError(f"{folder} is not a workdir: ddpm-jax train EXPERIMENT --workdir {folder} makes one")
    return recipes.read(folder / "experiment.py")(**read_knobs(folder))


def load(folder: str | Path) -> Run:
    """The run in a workdir: its experiment and the averaged parameters of its newest readable checkpoint.

    Raises FileNotFoundError if `folder` is no workdir or holds no checkpoint yet.
    """
    folder = Path(folder)
    experiment = read(folder)
    like = jax.eval_shape(init_fn(experiment), jax.random.key(0))
    with checkpoints.reader(folder / "checkpoints") as manager:
        found = checkpoints.restore_ema(manager, like)
    if found is None:
        raise FileNotFoundError(f"{folder} holds no checkpoint yet: let its training reach one")
    return Run(experiment, *found)


def write_json(path: Path, content: Any) -> None:
    """Written whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(part, path)


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree the library runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
