"""UNet2DModels of every kind that is converted, with tensors that depend on their names alone."""

import json
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.experiment import network_fn

GOLDEN = Path(__file__).parent / "golden"
MODEL = "diffusion_pytorch_model.safetensors"
CIFAR = {
    "sample_size": 32,
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
"""google/ddpm-cifar10-32."""

SMALL: dict[str, dict[str, Any]] = {
    "cifar": CIFAR | {"sample_size": 16, "block_out_channels": [8, 16, 16, 16], "norm_num_groups": 4},
    "256": CIFAR
    | {
        "sample_size": 32,
        "block_out_channels": [4, 4, 8, 8, 16, 16],
        "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
        "layers_per_block": 1,
        "norm_num_groups": 2,
    },
    "classes": {
        "sample_size": 8,
        "block_out_channels": [16, 24],
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "num_class_embeds": 5,
    },
    "grey": {
        "sample_size": [12, 20],
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    },
}
"""The kinds, small: the papers' way, six levels, class labels, greyscale that is not square with several heads."""


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of a size that keeps activations near one, none of them zero."""
    draw = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if len(shape) > 1:
        return (draw / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return ((1.0 if name.endswith("weight") else 0.0) + 0.1 * draw).astype(np.float32)  # of a normalization, or a bias


def inputs(config: dict[str, Any], batch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Images [batch, height, width, channels], timestep indices and labels."""
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    draw = np.random.default_rng(7)
    x = draw.normal(size=(batch, height, width, config.get("in_channels", 3))).astype(np.float32)
    classes = config.get("num_class_embeds")
    index = draw.integers(0, 1000, batch).astype(np.int32)
    return x, index, None if classes is None else draw.integers(0, classes, batch).astype(np.int32)


def write(folder: Path, name: str = "grey", **scheduler: Any) -> Path:
    """A model's folder as published ones are: the files side by side."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"} | golden["config"]))
    (folder / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"} | scheduler))
    save_file({key: tensor(key, tuple(shape)) for key, shape in golden["shapes"].items()}, folder / MODEL)
    return folder


def load(folder: Path) -> ddpm_jax.Run:
    assert main(["convert", str(folder), str(folder.parent / "run"), "--weights", "raw"]) == 0
    return ddpm_jax.load(folder.parent / "run")


def gradient_and_output(run: ddpm_jax.Run, x, index, label):
    """The gradient of the mean square of the network's output by x, and the output."""
    condition = None if label is None else jnp.asarray(label)

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def ours(x):
        def mean_square(x):
            y = network_fn(run.experiment, run.params)(x, index + 1, condition)
            return jnp.square(y).mean(), y

        return jax.grad(mean_square, has_aux=True)(x)

    return ours(x)


def check_golden(run: ddpm_jax.Run, inputs, file: str) -> None:
    """Compares output and gradient with those in the file of golden values."""
    golden = np.load(GOLDEN / file)
    found = gradient_and_output(run, *inputs)
    for mine, theirs in zip(found, (golden["gradient"], golden["output"]), strict=True):
        assert np.abs(mine - theirs).max() < 1e-4 * np.abs(theirs).max()
