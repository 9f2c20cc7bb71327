"""Shardings: how the arrays of a run are distributed over the devices of all its processes."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp")
"""The axes of the mesh. The batch is sharded over both; parameters, averages and optimizer state over "fsdp"."""
SMALL = 2**14
"""Arrays with fewer elements are replicated: sharding them saves nothing and costs a collective."""


def parse(text: str) -> dict[str, int]:
    """The sizes of the mesh axes, by name, from text such as ``"data=4,fsdp=2"``. Raises ValueError for other forms."""
    sizes = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in AXES or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"--mesh {text}: write it as data=4,fsdp=2")
        sizes[name] = int(size)
    return sizes


def make_mesh(sizes: Mapping[str, int] | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh with the axes `AXES` over these devices, by default all devices of all processes.

    If the size of "fsdp" is missing, it is 1; if the size of "data" is missing, it is the number of devices divided by
    fsdp. Raises ValueError if data times fsdp is not the number of devices.
    """
    sizes, count = dict(sizes or {}), jax.device_count() if devices is None else len(devices)
    fsdp = sizes.get("fsdp", 1)
    shape = (sizes.get("data", max(1, count // fsdp)), fsdp)
    if math.prod(shape) != count:
        asked = ",".join(f"{name}={size}" for name, size in sizes.items())
        raise ValueError(f"--mesh {asked} does not fit {count} device(s): data times fsdp has to be {count}")
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto, AxisType.Auto), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array of which each device has a full copy."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The sharding of a batch along `axis` over all devices; the batch size must be a multiple of their number."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXES))


def parameter_sharding(shape: tuple[int, ...], mesh: Mesh, small: int = SMALL) -> NamedSharding:
    """The sharding of a parameter over "fsdp": along its largest axis that fsdp divides, the last one among equals.

    Arrays of fewer than `small` elements, and those without such an axis, are replicated.
    """
    parts = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or math.prod(shape) < small or not axes:
        return replicated(mesh)
    largest = max(axes, key=lambda axis: (shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))


def with_shardings(tree: Any, mesh: Mesh, small: int = SMALL) -> Any:
    """The shapes and dtypes of the arrays of the tree, each with its `parameter_sharding`."""

    def one(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parameter_sharding(x.shape, mesh, small))

    return jax.tree.map(one, tree)


def shardings(tree: Any) -> Any:
    """The shardings of the arrays, or shapes, of the tree."""
    return jax.tree.map(lambda x: x.sharding, tree)


def all_gathered(tree: Any, mesh: Mesh) -> Any:
    """All-gathers the fsdp-sharded parameters, for use inside a jitted function.

    Without it XLA would shard the activations like the parameters. All parameters are gathered at once, before they are
    used, so fsdp saves memory for the averages and the optimizer state, but not for the parameters during a step: this
    is not ZeRO-3.
    """
    if mesh.shape["fsdp"] == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Uploads host arrays to the devices with this sharding; every process must have the full arrays."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    # device_put would exchange the processes' copies to compare them
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), tree)


def local_rows(batch_size: int, sharding: NamedSharding) -> np.ndarray:
    """The indices of the rows of a batch that are on the devices of this process, increasing: int [rows]."""
    spans = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[span] for span in spans if span is not None]))


def rows_to_devices(tree: Any, rows: np.ndarray, batch_size: int, sharding: NamedSharding) -> Any:
    """Uploads batches of which this process has only the rows with the indices `rows`, int [rows]: see `local_rows`.

    The arrays of `tree` are [rows, ...], those of the result [batch_size, ...].
    """

    def one(x: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            return x[np.searchsorted(rows, np.arange(batch_size)[index[0]])]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, piece)

    return jax.tree.map(one, tree)


def on_each_device(
    function: Callable[[Any, Any], Any], shared: Any, most: int | None = None
) -> Callable[[Sequence[Any]], list[Any]]:
    """Returns ``call(chunks)`` -> [``function(shared, chunk)`` for each chunk]; a device computes one chunk.

    The devices are those of this process, or `most` of them. The chunks are trees of host arrays of the same shapes, at
    most one for each device; the results are trees of host arrays. Each device runs the program of a single chunk, so
    that a result does not depend on the number of devices. `shared` is copied to each device once.
    """
    devices = jax.local_devices()[:most]
    mesh = Mesh(np.array(devices), ("chunk",), axis_types=(AxisType.Auto,))
    one_each, same = PartitionSpec("chunk"), PartitionSpec()

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(same, one_each), out_specs=one_each, check_vma=False)
    def program(shared, chunks):
        result = function(shared, jax.tree.map(lambda x: x[0], chunks))
        return jax.tree.map(lambda x: x[None], result)

    shared = jax.device_put(shared, NamedSharding(mesh, same))

    def call(chunks: Sequence[Any]) -> list[Any]:
        padded = [*chunks, *[chunks[-1]] * (len(devices) - len(chunks))]
        stacked = jax.tree.map(lambda *x: np.stack(x), *padded)
        results = jax.device_get(program(shared, jax.device_put(stacked, NamedSharding(mesh, one_each))))
        return [jax.tree.map(lambda x, n=n: x[n], results) for n in range(len(chunks))]

    return call
