"""A diffusers folder: a pipeline with ``unet/`` and ``scheduler/``, or a model with its files side by side."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
OURS = "ddpm_jax.json"
"""What a folder that was written here tells of its origin."""
UNET, SCHEDULER = "config.json", "scheduler_config.json"


class Folder(NamedTuple):
    """What a folder holds, as its files have it."""

    unet: dict[str, Any]
    scheduler: dict[str, Any]
    tensors: dict[str, np.ndarray]
    origin: dict[str, Any]
    """Of a folder that `write` made, empty otherwise."""


def is_one(folder: Path) -> bool:
    """Whether it looks like a folder of diffusers."""
    return any((place / UNET).is_file() for place in (folder, folder / "unet"))


def read(folder: Path) -> Folder:
    """Reads the folder. No pickle is opened: those can hold programs, safetensors holds numbers alone.

    Raises FileNotFoundError or ValueError saying which file is missing or cannot be read.
    """
    if not is_one(folder):
        raise FileNotFoundError(f"{folder} holds no {UNET} of a UNet2DModel, nor unet/{UNET}")
    place = folder / "unet" if (folder / "unet" / UNET).is_file() else folder
    unet = _json(place / UNET)
    kind = unet.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ValueError(f"{place / UNET} is of a {kind}: only UNet2DModel can be read")
    return Folder(unet, _scheduler(folder), _tensors(place), _json(folder / OURS) if (folder / OURS).exists() else {})


def _scheduler(folder: Path) -> dict[str, Any]:
    for path in (folder / "scheduler" / SCHEDULER, folder / SCHEDULER):
        if path.is_file():
            return _json(path)
    raise FileNotFoundError(
        f"{folder} holds no {SCHEDULER}, which tells the betas and what the network predicts: put the one it was "
        "trained with there"
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
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS[0]}{_instead(folder)}")
    try:
        return load_file(path)
    except (SafetensorError, AttributeError, KeyError, ValueError) as error:  # AttributeError: of a type NumPy lacks
        raise ValueError(f"{path} cannot be read: {error}") from None


def _instead(folder: Path) -> str:
    """What to do about the weights that are there."""
    if any(folder.glob("*.safetensors.index.json")):
        return ", but shards of it: let diffusers save the model again with a larger max_shard_size"
    if any(folder.glob("*.bin")):
        return "; a .bin is a pickle, which can run programs, and is not read: save it with safe_serialization=True"
    return ""


def write(folder: Path, content: Folder) -> None:
    """The files of a pipeline into an empty folder."""
    from safetensors.numpy import save_file

    for name in ("unet", "scheduler"):
        (folder / name).mkdir()
    kind = content.scheduler["_class_name"]
    index = {"_class_name": kind.replace("Scheduler", "Pipeline"), "unet": ["diffusers", "UNet2DModel"]}
    _write_json(folder / "model_index.json", index | {"scheduler": ["diffusers", kind]})
    _write_json(folder / "unet" / UNET, content.unet)
    _write_json(folder / "scheduler" / SCHEDULER, content.scheduler)
    _write_json(folder / OURS, content.origin)
    save_file(content.tensors, folder / "unet" / WEIGHTS[0], metadata={"format": "pt"})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
