"""What a train step costs: FLOPs, bytes on a device, and collectives, as XLA counts them."""

import math
import re
from typing import Any

import jax
import numpy as np

from ddpm_jax.experiment import Experiment

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_RESULT = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


def compute_dtype(experiment: Experiment) -> Any:
    """The dtype in which the network computes: its field `dtype`, or float32 without one."""
    return getattr(experiment.network, "dtype", np.float32)


def flops(lowered: Any) -> float | None:
    """Floating-point operations of a lowered function; None on a device whose compiler does not count them."""
    cost = lowered.cost_analysis()
    return None if cost is None else float((cost[0] if isinstance(cost, list) else cost)["flops"])


def tree_bytes(tree: Any) -> int:
    """The bytes that all arrays of a tree occupy on one device; the leaves are arrays, or shapes with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """The collectives in the text of a compiled program: kind -> (number, bytes of their results on a device)."""
    found: dict[str, tuple[int, int]] = {}
    for result, kind in _RESULT.findall(program):
        count, size = found.get(kind, (0, 0))
        found[kind] = (count + 1, size + sum(map(_array_bytes, _ARRAY.findall(result))))
    return found


def _array_bytes(array: tuple[str, str]) -> int:
    kind, shape = array
    bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
    return math.prod(int(size) for size in shape.split(",") if size) * bits // 8
