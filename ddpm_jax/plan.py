"""What `plan` tells before anything is trained: parameters, FLOPs and bytes, from shapes and XLA's own analysis."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.experiment import Experiment
from ddpm_jax.train import abstract_state, check_batch, train_step
from ddpm_jax.training import TrainState, sharding


class Plan(NamedTuple):
    """The cost of one train step. Bytes are those of one device; nothing is allocated to find them."""

    parameters: int
    batch_size: int
    flops_per_step: float
    """Floating-point operations of one step over the whole batch, as XLA counts them before optimisation."""
    parameter_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    batch_bytes: int
    activation_bytes: int
    """XLA's temporary memory for the compiled step: activations, gradients and scratch."""
    total_bytes: int
    steps: int
    flops: float
    """Of the whole run."""
    backend: str
    """The memory is that of a step compiled for this backend."""
    devices: int


def plan(experiment: Experiment) -> Plan:
    """Compiles the train step for the devices at hand, on shapes alone. Raises ValueError for what cannot be built."""
    mesh = sharding.make_mesh()
    check_batch(experiment, mesh)
    state, batch = abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    lowered = jax.jit(train_step(experiment), donate_argnums=0).lower(state, batch)
    flops = _flops(lowered)
    memory: Any = lowered.compile().memory_analysis()
    bytes_of = {name: tree_bytes(tree) for name, tree in state._asdict().items()}
    temporary = memory.temp_size_in_bytes
    batch_bytes = tree_bytes(batch) // mesh.shape["data"]
    return Plan(
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        batch_size=experiment.batch_size,
        flops_per_step=flops,
        parameter_bytes=bytes_of["params"],
        optimizer_bytes=bytes_of["opt_state"],
        ema_bytes=bytes_of["ema"],
        batch_bytes=batch_bytes,
        activation_bytes=temporary,
        total_bytes=sum(bytes_of.values()) + batch_bytes + temporary,
        steps=experiment.num_steps,
        flops=flops * experiment.num_steps,
        backend=jax.default_backend(),
        devices=mesh.size,
    )


def abstract_batch(experiment: Experiment, mesh: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes, types and places of one batch."""
    place, stored = sharding.split(mesh), jnp.float32 if experiment.data.levels is None else jnp.uint8
    images = jax.ShapeDtypeStruct((experiment.batch_size, *experiment.data.image_shape), stored, sharding=place)
    if experiment.data.num_classes is None:
        return {"image": images}
    return {"image": images, "label": jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32, sharding=place)}


def tree_bytes(tree: Any | TrainState) -> int:
    """The bytes of all arrays, or shapes of arrays, in a tree."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _flops(lowered: Any) -> float:
    cost = lowered.cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost)["flops"])


def table(costs: Plan) -> str:
    """The plan for people."""
    gib = 2**30
    rows = [
        ("parameters", f"{costs.parameters:,}"),
        ("batch", f"{costs.batch_size:,} images on {costs.devices} {costs.backend} device(s)"),
        ("a step", f"{costs.flops_per_step / 1e12:.4g} TFLOP"),
        ("the run", f"{costs.steps:,} steps, {costs.flops / 1e18:.4g} EFLOP"),
        *((f"{name} a device", f"{getattr(costs, f'{name}_bytes') / gib:.3f} GiB") for name in _PLACES),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


_PLACES = ("parameter", "optimizer", "ema", "batch", "activation", "total")
