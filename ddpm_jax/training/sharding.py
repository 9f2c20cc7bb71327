"""Where arrays live: one mesh over all devices of all processes, of which a single device is the smallest case."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
"""The batch is spread over both, parameters, averages and the optimizer's state over the second."""
SMALL = 2**14
"""Arrays of fewer elements stay whole: splitting them saves nothing and costs a message."""


def parse(text: str) -> dict[str, int]:
    """``"data=4,fsdp=2"`` as a mapping. Raises ValueError for what is not of this form."""
    sizes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"--mesh {text}: write it as data=4,fsdp=2")
        sizes[name] = int(size)
    return sizes


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes `AXES` over these devices, or all; what `sizes` leaves open goes to data.

    Raises ValueError where the sizes do not make up the number of devices.
    """
    sizes, count = dict(sizes or {}), jax.device_count() if devices is None else len(devices)
    fsdp = sizes.get("fsdp", 1)
    shape = (sizes.get("data", max(1, count // fsdp)), fsdp)
    if math.prod(shape) != count:
        asked = ",".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(f"--mesh {asked} does not fit {count} device(s): data times fsdp has to be {count}")
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The array's `axis`, that of the batch, spread over the devices; its size must divide by their number."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def of_parameter(shape: tuple[int, ...], mesh: Mesh, small: int = SMALL) -> NamedSharding:
    """The largest axis that fsdp divides, the last of equals, spread over it; small arrays and others stay whole."""
    parts = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or math.prod(shape) < small or not axes:
        return replicated(mesh)
    largest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))


def place(tree: Any, mesh: Mesh, small: int = SMALL) -> Any:
    """Each shape of the tree with the place that `of_parameter` gives it."""

    def placed(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=of_parameter(x.shape, mesh, small))

    return jax.tree.map(placed, tree)


def places(tree: Any) -> Any:
    """Where the arrays of the tree, or its shapes, live."""
    return jax.tree.map(lambda x: x.sharding, tree)


def gathered(tree: Any, mesh: Mesh) -> Any:
    """The arrays whole on each device, inside a jitted function: what is split is put together where it is used.

    Left to itself XLA would split what is computed as the parameters are.
    """
    if mesh.shape["fsdp"] == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays, which every process has whole, onto the devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    # device_put would compare the processes' copies, by sending them around
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), tree)


def own_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The rows of a batch that lie on this process's devices, rising."""
    spans = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[span] for span in spans if span is not None]))


def put_own(tree: Any, rows: np.ndarray, batch_size: int, sharding: NamedSharding) -> Any:
    """Batches of which this process has these rows, onto the devices."""

    def one(x: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            return x[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, piece)

    return jax.tree.map(one, tree)
