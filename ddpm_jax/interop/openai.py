"""Checkpoints of improved-diffusion and guided-diffusion (OpenAI, 2021): their U-Net as the fields of ours.

These are files of tensors without a config. `fields` infers from the shapes what they determine; `released` knows the
rest for the checkpoints that were published, by their file names.
"""

import re
from pathlib import Path as File
from typing import Any

import numpy as np

from ddpm_jax.interop import folders, tensors, torch_files
from ddpm_jax.interop.tensors import Params, Path, Tensors

TOP = {
    ("time", "dense_in"): "time_embed.0",
    ("time", "dense_out"): "time_embed.2",
    ("time", "label"): "label_emb",
    ("conv_in",): "input_blocks.0.0",
    ("norm_out",): "out.0",
    ("conv_out",): "out.2",
}
"""Layers outside the blocks: our path, and their name."""
INSIDE = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "time": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "shortcut": "skip_connection",
    "norm": "norm",
    "query": "query",
    "key": "key",
    "value": "value",
    "out": "proj_out",
}
"""Layers of residual and attention blocks: our name, and theirs; query, key and value are those of `split`."""
COLUMNS = ("image_size", "timesteps", "schedule", "rescale_timesteps", "heads", "head_dim", "attention_order")
"""What the shapes of the tensors do not determine."""
RELEASED = {
    "cifar10_uncond_50M_500K": (32, 4000, "cosine", True, 4, None, "legacy"),
    "cifar10_uncond_vlb_50M_500K": (32, 4000, "cosine", True, 4, None, "legacy"),
    "imagenet64_uncond_100M_1500K": (64, 4000, "cosine", True, 4, None, "legacy"),
    "imagenet64_uncond_vlb_100M_1500K": (64, 4000, "cosine", True, 4, None, "legacy"),
    "imagenet64_cond_270M_250K": (64, 4000, "cosine", False, 4, None, "legacy"),
    "lsun_uncond_100M_1200K_bs128": (256, 1000, "linear", False, 1, None, "legacy"),
    "lsun_uncond_100M_2400K_bs64": (256, 1000, "linear", False, 1, None, "legacy"),
    "64x64_diffusion": (64, 1000, "cosine", False, None, 64, "new"),
    "128x128_diffusion": (128, 1000, "linear", False, 4, None, "legacy"),
    "256x256_diffusion": (256, 1000, "linear", False, None, 64, "legacy"),
    "256x256_diffusion_uncond": (256, 1000, "linear", False, None, 64, "legacy"),
    "512x512_diffusion": (512, 1000, "linear", False, None, 64, "legacy"),
    "lsun_bedroom": (256, 1000, "linear", False, None, 64, "legacy"),
    "lsun_cat": (256, 1000, "linear", False, None, 64, "legacy"),
    "lsun_horse": (256, 1000, "linear", False, None, 64, "legacy"),
    "lsun_horse_nodropout": (256, 1000, "linear", False, None, 64, "legacy"),
}
"""The published models of images, by file name: their `COLUMNS`, as the flags in the two READMEs state them."""


def released(file: File) -> dict[str, Any]:
    """The `COLUMNS` of a published checkpoint, by its file name; empty for any other name."""
    pairs = zip(COLUMNS, RELEASED.get(file.stem, ()), strict=False)
    return {name: value for name, value in pairs if value is not None}


def read(file: File) -> Tensors:
    """The tensors of a file of ``torch.save``, or of a safetensors file. Raises ValueError if it cannot be read."""
    return folders.read_safetensors(file) if file.suffix == ".safetensors" else torch_files.read(file)


def weights_of(file: File) -> str | None:
    """Whether the file name states that the weights are an average ("ema") or not ("raw"); None if neither."""
    # ema_0.9999_500000.pt and model500000.pt are the names that both programs give to what they save
    return "ema" if re.match(r"ema_", file.name) else "raw" if re.match(r"model\d+", file.name) else None


def fields(loaded: Tensors, image_size: int) -> dict[str, Any]:
    """The fields of our U-Net that the shapes determine, and ``image_shape`` (height, width, channels).

    Raises ValueError for tensors that are not those of their model of images.
    """
    shapes = {name: tensor.shape for name, tensor in loaded.items()}
    up = _count(shapes, "output_blocks")
    num_blocks = next((n for n in range(up) if _upsamples(shapes, n)), up - 1)
    first = range(0, up, num_blocks + 1)[::-1]  # the first block of each level on the way up, from the finest level
    width, inputs = _shape(shapes, "time_embed.0.weight")[1], _shape(shapes, "input_blocks.0.0.weight")[1]
    features = [_shape(shapes, f"output_blocks.{n}.0.out_layers.3.weight")[0] for n in first]
    outputs = _shape(shapes, "out.2.weight")[0]
    _check_channels(inputs, outputs)
    return {
        "image_shape": (image_size, image_size, inputs),
        "width": width,
        "multipliers": tuple(channels / width for channels in features),
        "num_blocks": num_blocks,
        "attention": tuple(
            image_size // 2**level for level, n in enumerate(first) if f"output_blocks.{n}.1.qkv.weight" in shapes
        ),
        "out_channels": outputs,
        "num_classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
        "scale_shift": _shape(shapes, "middle_block.0.emb_layers.1.weight")[0] == 2 * features[-1],
        "residual_resampling": f"input_blocks.{num_blocks + 1}.0.in_layers.2.weight" in shapes and len(features) > 1,
        "norm_eps": 1e-5,
        "down_padding": 1,
        "cos_first": True,
        "frequency_shift": 0,
    }


def _check_channels(inputs: int, outputs: int) -> None:
    if outputs not in (inputs, 2 * inputs) or inputs > 4:
        raise ValueError(
            f"the network has {inputs} input and {outputs} output channels: only models of images are converted, not "
            "those with a second image as input, which increase the resolution"
        )


def _shape(shapes: dict[str, tuple[int, ...]], name: str) -> tuple[int, ...]:
    if name not in shapes:
        raise ValueError(f"missing tensor {name}: this is no U-Net of improved-diffusion or guided-diffusion")
    return shapes[name]


def _count(shapes: dict[str, tuple[int, ...]], name: str) -> int:
    """The number of blocks in a list of this name."""
    found = {match[1] for each in shapes if (match := re.match(rf"{name}\.(\d+)\.", each))}
    _shape(shapes, f"{name}.{max(0, len(found) - 1)}.0.out_layers.3.weight")
    return len(found)


def _upsamples(shapes: dict[str, tuple[int, ...]], block: int) -> bool:
    """Whether the block on the way up ends in a layer that doubles the resolution."""
    last = (f"output_blocks.{block}.{n}.{layer}.weight" for n in (1, 2) for layer in ("conv", "in_layers.2"))
    return any(name in shapes for name in last)


def to_params(loaded: Tensors, like: Params, network: dict[str, Any], attention_order: str) -> dict[str, Any]:
    """The parameters of our U-Net with the fields `network`, and with the structure and shapes of `like`.

    A label embedding gets a row of zeros for "no label". Raises ValueError as `tensors.to_params` does.
    """
    heads, head_dim = network["heads"], network["head_dim"]
    apart: Tensors = {}
    for name, tensor in tensors.with_null_row(loaded, "label_emb.weight").items():
        if re.search(r"\.qkv\.(weight|bias)$", name):
            count = heads if head_dim is None else max(1, len(tensor) // 3 // head_dim)
            apart |= split(name, tensor, count, attention_order)
        else:
            apart[name] = _without_length(tensor)
    return tensors.fill(apart, like, lambda path: _name(path, network))


def split(name: str, tensor: np.ndarray, heads: int, attention_order: str) -> Tensors:
    """The tensors of query, key and value in one of all three, ``qkv``, [3 channels, ..].

    "legacy" has the three of each head together, "new" all heads of each of the three. Raises ValueError if `heads`
    does not divide the channels.
    """
    rows = _without_length(tensor)
    if len(rows) % (3 * heads):
        raise ValueError(f"{len(rows) // 3} channels of {name} do not divide into {heads} heads")
    order = (3, heads) if attention_order == "new" else (heads, 3)
    parts = rows.reshape(*order, -1, *rows.shape[1:])
    if attention_order != "new":
        parts = parts.swapaxes(0, 1)
    merged = parts.reshape(3, -1, *rows.shape[1:])
    return {name.replace("qkv", part): merged[n] for n, part in enumerate(("query", "key", "value"))}


def _without_length(tensor: np.ndarray) -> np.ndarray:
    """The tensor of a convolution of size 1 over a sequence, [out, in, 1], as that of a dense layer, [out, in]."""
    return tensor[:, :, 0] if tensor.ndim == 3 and tensor.shape[2] == 1 else tensor


def _name(path: Path, network: dict[str, Any]) -> str:
    """Their name of the tensor at our path, after `split`."""
    *layers, leaf = path
    if tuple(layers) in TOP:
        return f"{TOP[tuple(layers)]}.{tensors.LEAVES[leaf]}"
    inside = [INSIDE[layer] for layer in layers[1:]]
    return ".".join((_block(layers[0], network, bool(inside)), *inside, tensors.LEAVES[leaf]))


def _block(name: str, network: dict[str, Any], residual: bool) -> str:
    """Their name of a block, such as ``input_blocks.6.1`` for ``down_1_1_attention``.

    They count all blocks of a way, the ones that change the resolution included. On the way up, these are part of the
    last block of the level. `residual` is whether the block has layers.
    """
    way, *numbers = re.findall(r"[a-z]+|\d+", name.removesuffix("_attention"))
    level, *block = map(int, numbers)
    attends = int(name.endswith("_attention"))
    per_level = network["num_blocks"] + 1
    if way == "mid":
        return f"middle_block.{1 if attends else 2 * level}"
    if way == "down":
        within = block[0] + 1 if block else per_level
        return f"input_blocks.{level * per_level + within}.{attends}" + ("" if block or residual else ".op")
    lower = len(network["multipliers"]) - 1 - level
    if block:
        return f"output_blocks.{lower * per_level + block[0]}.{attends}"
    height = network["image_shape"][0] // 2**level
    last = f"output_blocks.{lower * per_level + per_level - 1}.{1 + (height in network['attention'])}"
    return last if residual else f"{last}.conv"
