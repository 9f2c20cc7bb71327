"""Folders of diffusers: a pipeline with ``unet/`` and ``scheduler/``, or a model with all its files in one folder."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
UNET, SCHEDULER = "config.json", "scheduler_config.json"
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1"}
"""The types of safetensors and NumPy's names for them."""
ORIGIN = "ddpm_jax.json"
"""The file in which a folder written by `write` records where it came from."""


class Folder(NamedTuple):
    """The content of a diffusers folder."""

    unet: dict[str, Any]
    """The config of the network."""
    scheduler: dict[str, Any]
    """The config of the scheduler."""
    tensors: dict[str, np.ndarray]
    """The weights by their names in diffusers."""
    origin: dict[str, Any]
    """The content of `ORIGIN`; empty for a folder that `write` did not make."""


def is_diffusers(folder: Path) -> bool:
    """Whether the folder holds the config of a diffusers model."""
    return any((candidate / UNET).is_file() for candidate in (folder, folder / "unet"))


def read(folder: Path) -> Folder:
    """Reads a diffusers folder. Weights are read from safetensors only: a pickle can execute code.

    Raises FileNotFoundError or ValueError naming the file that is missing or cannot be read.
    """
    if not is_diffusers(folder):
        raise FileNotFoundError(f"{folder} has neither {UNET} of a UNet2DModel nor unet/{UNET}")
    model = folder / "unet" if (folder / "unet" / UNET).is_file() else folder
    unet = _json(model / UNET)
    class_name = unet.get("_class_name", "UNet2DModel")
    if class_name != "UNet2DModel":
        raise ValueError(f"{model / UNET} is of a {class_name}: only UNet2DModel is supported")
    origin = _json(folder / ORIGIN) if (folder / ORIGIN).exists() else {}
    return Folder(unet, _scheduler(folder), _tensors(model), origin)


def _scheduler(folder: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / SCHEDULER, folder / SCHEDULER):
        if path.is_file():
            return _json(path)
    raise FileNotFoundError(
        f"{folder} has no {SCHEDULER}, which defines the betas and the prediction of the network: add the one it was "
        "trained with"
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no {WEIGHTS[0]}{_advice(folder)}")
    return read_safetensors(path)


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file by name, in the shapes of the file. bfloat16 becomes float32.

    Raises ValueError, with the path, if it cannot be read, or has a type that NumPy lacks, such as float8.
    """
    from safetensors import SafetensorError, deserialize

    try:
        views = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    return {name: _array(path, view["dtype"], view["data"]).reshape(view["shape"]) for name, view in views}


def _array(path: Path, kind: str, data: bytes | bytearray) -> np.ndarray:
    """The numbers of a tensor of the type that safetensors names `kind`."""
    if kind == "BF16":
        return np.frombuffer(data, ml_dtypes.bfloat16).astype(np.float32)
    try:
        return np.frombuffer(data, NUMPY[kind])
    except KeyError:
        raise ValueError(f"{path} cannot be read: it has the type {kind}, not BF16, {', '.join(NUMPY)}") from None


def _advice(folder: Path) -> str:
    """The end of the error message where the folder has weights in a form that is not supported."""
    if any(folder.glob("*.safetensors.index.json")):
        return " but shards of it: save the model again with a larger max_shard_size"
    if any(folder.glob("*.bin")):
        return "; a .bin is a pickle, which can execute code, and is not read: save it with safe_serialization=True"
    return ""


def write(folder: Path, content: Folder) -> None:
    """Writes the files of a diffusers pipeline into an empty folder."""
    from safetensors.numpy import save_file

    for name in ("unet", "scheduler"):
        (folder / name).mkdir()
    scheduler = content.scheduler["_class_name"]
    index = {"_class_name": scheduler.replace("Scheduler", "Pipeline"), "unet": ["diffusers", "UNet2DModel"]}
    _write_json(folder / "model_index.json", index | {"scheduler": ["diffusers", scheduler]})
    _write_json(folder / "unet" / UNET, content.unet)
    _write_json(folder / "scheduler" / SCHEDULER, content.scheduler)
    _write_json(folder / ORIGIN, content.origin)
    save_file(content.tensors, folder / "unet" / WEIGHTS[0], metadata={"format": "pt"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
