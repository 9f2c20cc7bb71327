"""Conversion between the tensors of diffusers' ``UNet2DModel`` and the parameters of our U-Net."""

import re
from collections.abc import Callable, Mapping, Set
from functools import partial
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]
"""Tensors by their names in diffusers: convolutions are [out, in, height, width], dense layers [out, in]."""
Params = Mapping[str, Any]
"""Nested dictionaries of Flax: convolutions are [height, width, in, out], dense layers [in, out]."""
Path = tuple[str, ...]
"""The path of an array in nested dictionaries."""

TOP = {
    ("time", "dense_in"): "time_embedding.linear_1",
    ("time", "dense_out"): "time_embedding.linear_2",
    ("time", "label"): "class_embedding",
    ("conv_in",): "conv_in",
    ("norm_out",): "conv_norm_out",
    ("conv_out",): "conv_out",
}
"""Layers outside the blocks: our path, and diffusers' name."""
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
"""Layers of residual and attention blocks: our name, and diffusers'."""
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
"""The names of attention layers in checkpoints of 2022, and their current names."""
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
"""Our name of an array in a layer, and diffusers'."""


def from_params(params: Params, levels: int) -> Tensors:
    """The tensors of the ``UNet2DModel`` with the same weights; `levels` is the number of resolutions."""
    return {_name(path, levels): _theirs(path, np.asarray(leaf)) for path, leaf in _flat(params)}


def to_params(tensors: Tensors, like: Params, levels: int) -> dict[str, Any]:
    """The parameters of our U-Net, float32, with the structure and shapes of `like`, whose leaves have a ``shape``.

    Raises ValueError naming the first tensor that is missing, unexpected, of another shape, or not finite.
    """
    renamed = {_current_name(name): tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise ValueError(
            "the tensors hold the layers of attention twice, under their old and their current names: remove one set"
        )
    return fill(renamed, like, partial(_name, levels=levels))


def fill(tensors: Tensors, like: Params, name: Callable[[Path], str]) -> dict[str, Any]:
    """The parameters of our U-Net as `to_params` returns them; `name` returns the name of the tensor at a path."""
    _check_names({name(path) for path, _ in _flat(like)}, tensors.keys())
    params: dict[str, Any] = {}
    for path, leaf in _flat(like):
        tensor = tensors[name(path)]
        _set(params, path, _checked(name(path), _ours(path, tensor), tensor, leaf.shape))
    return params


def _check_names(expected: Set[str], found: Set[str]) -> None:
    """Raises ValueError unless the names are the same."""
    for problem, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            others = f", and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{problem} tensor {min(names)}{others}")


def _checked(name: str, ours: np.ndarray, theirs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The converted tensor. Raises ValueError unless it has this shape and is finite."""
    if ours.shape != tuple(shape):
        raise ValueError(f"the tensor {name} of shape {theirs.shape} does not fit a parameter of shape {shape}")
    if not np.isfinite(ours).all():
        raise ValueError(f"the tensor {name} has values that are not finite")
    return ours


def with_null_class(tensors: Tensors) -> Tensors:
    """The tensors with one more row of zeros in the class embedding, for "no label"."""
    return with_null_row(tensors, "class_embedding.weight")


def with_null_row(tensors: Tensors, name: str) -> Tensors:
    """The tensors with one more row of zeros in the tensor of this name, if there is one."""
    if name not in tensors:
        return tensors
    return tensors | {name: np.pad(tensors[name], ((0, 1), (0, 0)))}


def _name(path: Path, levels: int) -> str:
    """diffusers' name of the tensor at our path."""
    *layers, leaf = path
    if tuple(layers) in TOP:
        return f"{TOP[tuple(layers)]}.{LEAVES[leaf]}"
    inside = [INSIDE[layer] for layer in layers[1:]]
    return ".".join((_block(layers[0], levels), *inside, LEAVES[leaf]))


def _block(name: str, levels: int) -> str:
    """diffusers' name of a block, such as ``down_blocks.1.attentions.0`` for ``down_1_0_attention``.

    diffusers counts the blocks on the way up from the lowest resolution, we from the highest.
    """
    match = re.fullmatch(r"(down|mid|up)((?:_\d+)+)(_attention)?", name)
    way, numbers, attention = match.groups()  # type: ignore[union-attr]
    first, *block = map(int, numbers.strip("_").split("_"))
    kind = "attentions" if attention else "resnets"
    if way == "mid":
        return f"mid_block.{kind}.{first}"
    level = f"down_blocks.{first}" if way == "down" else f"up_blocks.{levels - 1 - first}"
    return f"{level}.{kind}.{block[0]}" if block else f"{level}.{way}samplers.0.conv"


def _current_name(name: str) -> str:
    for old, current in OLD.items():
        name = name.replace(old, current)
    return name


def _theirs(path: Path, leaf: np.ndarray) -> np.ndarray:
    """The array in diffusers' layout."""
    if path[-1] != "kernel":
        return leaf
    transposed = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf.T
    # the shortcut is a dense layer here and a 1x1 convolution in diffusers
    return np.ascontiguousarray(transposed[:, :, None, None] if path[-2] == "shortcut" else transposed)


def _ours(path: Path, tensor: np.ndarray) -> np.ndarray:
    """The tensor in our layout, float32: the inverse of `_theirs`."""
    tensor = tensor.astype(np.float32, copy=False)
    if path[-1] != "kernel":
        return tensor
    if path[-2] == "shortcut" and tensor.shape[2:] == (1, 1):
        tensor = tensor[:, :, 0, 0]
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _flat(tree: Params, path: Path = ()) -> list[tuple[Path, Any]]:
    """The (path, leaf) pairs of nested dictionaries."""
    return [
        pair
        for name, node in tree.items()
        for pair in (_flat(node, (*path, name)) if isinstance(node, Mapping) else [((*path, name), node)])
    ]


def _set(tree: dict[str, Any], path: Path, leaf: np.ndarray) -> None:
    """Sets the leaf at the path in nested dictionaries, which it creates as needed."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = leaf
