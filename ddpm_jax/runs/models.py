"""Trained models in small folders, and those that come with the library, in ``ddpm_jax/models``.

The folder of a model contains ``experiment.json`` (as in a workdir, with what its card states), ``weights.safetensors``
and ``README.md``, the card as text. It contains no program: the experiment is the library's own of the recorded name.
Nothing is written into it. ``runs.pack`` makes one from a workdir.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax.interop.folders import read_safetensors
from ddpm_jax.runs import experiment_files

FOLDER = Path(__file__).parents[1] / "models"
"""The folder of the models that come with the library."""
WEIGHTS = "weights.safetensors"
OUTPUTS = Path("outputs")
"""The folder, in the current one, for what commands write about models: their own folders are read-only."""

Params = Any


def shipped() -> dict[str, Path]:
    """The folders of the models that come with the library, by name."""
    return {path.name: path for path in sorted(FOLDER.glob("*")) if is_model(path)}


def is_model(folder: Path) -> bool:
    """Whether this is the folder of a model, which has weights instead of checkpoints."""
    return (folder / WEIGHTS).is_file()


def found(folder: Path) -> Path:
    """The folder itself if it exists; else that of the shipped model of this name; else the folder itself."""
    return folder if folder.exists() else shipped().get(str(folder), folder)


def home(folder: Path) -> Path:
    """The folder for what commands write about a run: its workdir; for a model, that of its name in `OUTPUTS`."""
    there = found(folder)
    return OUTPUTS / there.resolve().name if is_model(there) else folder


def named(folder: Path) -> str:
    """What identifies a run on this machine: the name of a shipped model, the whole path of any other folder."""
    return str(folder) if found(folder) != folder else str(folder.absolute())


def no_run(folder: Path) -> str:
    """The error message for a folder that holds no run."""
    names = shipped()
    if str(folder) in names:
        also = f"hides the model {folder}, which is found from other folders" if folder.exists() else "is a model"
        return f"{folder} is not a workdir, and {also}: ddpm-jax train EXPERIMENT --workdir DIR creates a workdir"
    if folder.exists():
        return f"{folder} is not a workdir: ddpm-jax train EXPERIMENT --workdir {folder} creates one"
    return (
        f"{folder} is not a workdir, nor one of the models that come with the library ({', '.join(names)}): give "
        f"the folder of a run or one of these names; ddpm-jax train EXPERIMENT --workdir {folder} creates a run"
    )


def program(folder: Path, record: dict[str, Any]) -> Path:
    """The experiment file of the run in `folder` with this record: its copy; for a model, the library's own.

    Raises ValueError if the library has none of the recorded name.
    """
    if not is_model(folder):
        return folder / "experiment.py"
    known, name = experiment_files.shipped(), record["experiment"]
    if name.removesuffix(".py") not in known:
        raise ValueError(f"the model in {folder} is of the experiment {name}, which this version does not have")
    return known[name.removesuffix(".py")]


def parameters(folder: Path, record: dict[str, Any], like: Params, weights: str | float) -> tuple[Params, int]:
    """(parameters, step) of the model in `folder` with this record; float32, with the structure of `like`.

    `weights` is "ema" for the parameters that it has, or their name. Raises ValueError for others, for a damaged file,
    and for parameters that do not fit the experiment.
    """
    if weights not in ("ema", record["weights"]):
        raise ValueError(f"--weights {weights}: the model in {folder} has its {record['weights']} weights only")
    file = folder / WEIGHTS
    if sha256(file) != record["sha256"]:
        raise ValueError(f"{file} is damaged: its SHA-256 is not that of the card; install ddpm_jax again")
    tensors = read_safetensors(file)
    leaves, structure = jax.tree.flatten_with_path(like)
    named = {_name(path): leaf.shape for path, leaf in leaves}
    if named != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ValueError(f"the parameters in {file} are not those of the experiment {record['experiment']} here")
    arrays = [tensors[name].astype(np.float32) for name in named]
    return jax.device_put(structure.unflatten(arrays), jax.local_devices()[0]), record["step"]


def tensors_of(params: Params, dtype: str) -> dict[str, np.ndarray]:
    """The parameters as arrays of this type by name. Raises ValueError for one that has no value of the type."""
    tensors = {}
    for path, leaf in jax.tree.leaves_with_path(params):
        with np.errstate(over="ignore"):
            tensors[_name(path)] = np.asarray(leaf).astype(jax.numpy.dtype(dtype))
        if not np.isfinite(tensors[_name(path)].astype(np.float32)).all():
            raise ValueError(f"the parameter {_name(path)} has values that {dtype} does not have: use --dtype float32")
    return tensors


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
