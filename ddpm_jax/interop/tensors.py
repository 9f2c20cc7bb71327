"""The names and layouts of a ``UNet2DModel``'s tensors, and of our U-Net's parameters."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
"""As in the file: convolutions [out, in, height, width], dense layers [out, in]."""
Params = Mapping[str, Any]
"""Flax's nested dictionaries: convolutions [height, width, in, out], dense layers [in, out]."""

TOP = {
    ("time", "dense_in"): "time_embedding.linear_1",
    ("time", "dense_out"): "time_embedding.linear_2",
    ("time", "label"): "class_embedding",
    ("conv_in",): "conv_in",
    ("norm_out",): "conv_norm_out",
    ("conv_out",): "conv_out",
}
INSIDE = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "time": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "out": "to_out.0",
}
"""The layers of residual blocks and of attention."""
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""The layers of attention as checkpoints of 2022 call them."""
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def from_params(params: Params, levels: int) -> Tensors:
    """The tensors of a ``UNet2DModel`` with as many levels."""
    return {_name(path, levels): _theirs(path, np.asarray(leaf)) for path, leaf in _flat(params)}


def to_params(tensors: Tensors, like: Params, levels: int) -> dict[str, Any]:
    """The parameters, float32, in the shapes of `like`, whose leaves have a ``shape``.

    Raises ValueError naming the first tensor that is missing, unexpected, of another shape or not finite.
    """
    renamed = {_new_name(name): tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise ValueError("the layers of attention are there twice, under their old names and their new ones")
    tensors = renamed
    wanted = {_name(path, levels): path for path, _ in _flat(like)}
    for told, names in (("missing", wanted.keys() - tensors), ("unexpected", tensors.keys() - wanted)):
        if names:
            raise ValueError(f"{told} tensor {min(names)}" + (f", and {len(names) - 1} more" if len(names) > 1 else ""))
    params: dict[str, Any] = {}
    for path, leaf in _flat(like):
        tensor = tensors[_name(path, levels)]
        _put(params, path, _checked(_name(path, levels), _ours(path, tensor), tensor, leaf.shape))
    return params


def _checked(name: str, ours: np.ndarray, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if ours.shape != tuple(shape):
        raise ValueError(f"the tensor {name} of shape {theirs.shape} is not that of a parameter of shape {shape}")
    if not np.isfinite(ours).all():
        raise ValueError(f"the tensor {name} holds numbers that are not finite")
    return ours


def with_null_class(tensors: Tensors) -> Tensors:
    """With a row of zeros after the classes': our label for "no label", which adds nothing to the time embedding."""
    name = "class_embedding.weight"
    if name not in tensors:
        return tensors
    return tensors | {name: np.pad(tensors[name], ((0, 1), (0, 0)))}


def _name(path: tuple[str, ...], levels: int) -> str:
    *layers, leaf = path
    if tuple(layers) in TOP:
        return f"{TOP[tuple(layers)]}.{LEAVES[leaf]}"
    inside = [INSIDE[layer] for layer in layers[1:]]
    return ".".join((_block(layers[0], levels), *inside, LEAVES[leaf]))


def _block(name: str, levels: int) -> str:
    """``down_1_0_attention``, say, is ``down_blocks.1.attentions.0``; upwards they count from the lowest resolution."""
    way, numbers, attention = re.fullmatch(r"(down|mid|up)((?:_\d+)+)(_attention)?", name).groups()  # type: ignore[union-attr]
    first, *block = map(int, numbers.strip("_").split("_"))
    kind = "attentions" if attention else "resnets"
    if way == "mid":
        return f"mid_block.{kind}.{first}"
    place = f"down_blocks.{first}" if way == "down" else f"up_blocks.{levels - 1 - first}"
    return f"{place}.{kind}.{block[0]}" if block else f"{place}.{way}samplers.0.conv"


def _new_name(name: str) -> str:
    for old, new in OLD.items():
        name = name.replace(old, new)
    return name


def _theirs(path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    if path[-1] != "kernel":
        return leaf
    turned = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    # what acts on the channels alone is a dense layer here and a convolution there
    return np.ascontiguousarray(turned[:, :, None, None] if path[-2] == "shortcut" else turned)


def _ours(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    tensor = tensor.astype(np.float32)
    if path[-1] != "kernel":
        return tensor
    if path[-2] == "shortcut" and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _flat(tree: Params, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    return [
        pair
        for name, node in tree.items()
        for pair in (_flat(node, (*path, name)) if isinstance(node, Mapping) else [((*path, name), node)])
    ]


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf
