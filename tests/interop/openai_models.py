"""Small U-Nets of improved-diffusion and guided-diffusion of every kind that is converted."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from interop.models import GOLDEN, tensor
from safetensors.numpy import save_file

SIZE = 8


class Model(NamedTuple):
    """A network by the fields of `openai_unet.Options`, and the options of `convert` that its shapes do not have."""

    options: dict[str, Any]
    flags: list[str]
    time_scale: float = 1.0


def flags(text: str) -> list[str]:
    return f"--image-size {SIZE} {text}".split()


MODELS = {
    "improved": Model(
        {"num_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 2, "attention": (1,), "num_heads": 4},
        flags("--timesteps 4000 --schedule cosine --heads 4 --rescale-timesteps True"),
        0.25,
    ),
    "guided": Model(
        {
            "num_channels": 64,
            "channel_mult": (0.5, 1),
            "num_res_blocks": 1,
            "attention": (0,),
            "num_head_channels": 16,
            "resblock_updown": True,
            "use_new_attention_order": True,
            "num_classes": 5,
        },
        flags("--timesteps 1000 --schedule linear --head-dim 16 --attention-order new"),
    ),
    "plain": Model(
        {
            "num_channels": 32,
            "channel_mult": (1,),
            "num_res_blocks": 1,
            "attention": (),
            "num_heads": 2,
            "use_scale_shift_norm": False,
            "out_channels": 3,
        },
        flags("--timesteps 30 --schedule linear --heads 2 --rescale-timesteps False"),
    ),
}
"""Convolutions and an even order of heads; residual resampling, classes and half a width; a single level."""


def inputs(name: str, batch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Images [batch, height, width, channels], timestep indices and labels."""
    draw = np.random.default_rng(7)
    x = draw.normal(size=(batch, SIZE, SIZE, 3)).astype(np.float32)
    classes = MODELS[name].options.get("num_classes")
    index = draw.integers(0, 1000, batch).astype(np.int32)
    return x, index, None if classes is None else draw.integers(0, classes, batch).astype(np.int32)


def tensors_of(name: str) -> dict[str, np.ndarray]:
    shapes = json.loads((GOLDEN / f"openai_{name}.json").read_text())["shapes"]
    return {key: tensor(key, tuple(shape)) for key, shape in shapes.items()}


def write(folder: Path, name: str = "plain", **changed: np.ndarray | None) -> Path:
    """A safetensors file of the model; `changed` replaces tensors, or removes those that are None."""
    content = {key: value for key, value in (tensors_of(name) | changed).items() if value is not None}
    save_file(content, folder / "ema_0.9999_001000.safetensors")
    return folder / "ema_0.9999_001000.safetensors"
