"""Where arrays live: one mesh over all devices, of which a single device is the smallest case."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def make_mesh() -> Mesh:
    """All devices on the axis `data`; the axis `fsdp`, over which parameters are to be split, has size one."""
    return jax.make_mesh((jax.device_count(), 1), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The array's `axis`, that of the batch, spread over the devices; its size must divide by their number."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, "data"))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays onto the devices."""
    return jax.device_put(tree, sharding)
