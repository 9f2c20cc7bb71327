"""What `plan` tells before anything is trained: parameters, FLOPs, bytes and messages, as XLA counts them."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ddpm_jax.advance import (
    DEFAULT,
    Setup,
    abstract_batch,
    abstract_state,
    check_batch,
    compiled,
    compute_dtype,
    step_flops,
    train_step,
)
from ddpm_jax.experiment import Experiment
from ddpm_jax.hardware import named
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
    """The memory and the collectives are those of a step compiled for this backend."""
    devices: int
    mesh: Mapping[str, int]
    accumulate: int
    dtype: str
    """What the network computes in."""
    collectives: Mapping[str, tuple[int, int]]
    """Kind -> (how many are in the compiled step, bytes that come out of them on a device). Loops count once."""


def plan(experiment: Experiment, setup: Setup = DEFAULT) -> Plan:
    """Compiles the train step for the devices of the mesh, on shapes alone.

    Raises ValueError for what cannot be built, or a mesh of more devices than JAX has here.
    """
    mesh = _mesh(setup.mesh)
    check_batch(experiment, mesh, setup.accumulate)
    state, batch = abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    lowered = compiled(experiment, mesh, train_step(experiment, mesh, setup)).lower(state, batch)
    per_step = step_flops(experiment, lowered, setup)
    program = lowered.compile()
    memory: Any = program.memory_analysis()
    bytes_of = {name: tree_bytes(tree) for name, tree in state._asdict().items()}
    batch_bytes = tree_bytes(batch)
    return Plan(
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        batch_size=experiment.batch_size,
        flops_per_step=per_step,
        parameter_bytes=bytes_of["params"],
        optimizer_bytes=bytes_of["opt_state"],
        ema_bytes=bytes_of["ema"],
        batch_bytes=batch_bytes,
        activation_bytes=memory.temp_size_in_bytes,
        total_bytes=sum(bytes_of.values()) + batch_bytes + memory.temp_size_in_bytes,
        steps=experiment.num_steps,
        flops=per_step * experiment.num_steps,
        backend=jax.default_backend(),
        devices=mesh.size,
        mesh=dict(mesh.shape),
        accumulate=setup.accumulate,
        dtype=jnp.dtype(compute_dtype(experiment)).name,
        collectives=collectives(program.as_text()),
    )


def _mesh(sizes: Mapping[str, int] | None) -> Mesh:
    if sizes is None:
        return sharding.make_mesh()
    wanted, devices = math.prod(sizes.values()), jax.devices()
    return sharding.make_mesh(sizes, devices[:wanted] if wanted <= len(devices) else None)


def tree_bytes(tree: Any | TrainState) -> int:
    """The bytes that all arrays of a tree, or shapes of arrays with their places, take on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_RESULT = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


def collectives(program: str) -> dict[str, tuple[int, int]]:
    """Kind -> (number, bytes) of the messages between devices in the text of a compiled program."""
    found: dict[str, tuple[int, int]] = {}
    for result, kind in _RESULT.findall(program):
        count, size = found.get(kind, (0, 0))
        found[kind] = (count + 1, size + sum(map(_array_bytes, _ARRAY.findall(result))))
    return found


def _array_bytes(array: tuple[str, str]) -> int:
    kind, shape = array
    bits = 8 if kind == "pred" else int(re.sub(r"\D", "", kind))
    return math.prod(int(size) for size in shape.split(",") if size) * bits // 8


def table(costs: Plan) -> str:
    """The plan for people."""
    axes = ", ".join(f"{name}={size}" for name, size in costs.mesh.items())
    rows = [
        ("parameters", f"{costs.parameters:,}"),
        ("batch", f"{costs.batch_size:,} images on {costs.devices} {costs.backend} device(s), mesh {axes}"),
        ("a step", f"{costs.flops_per_step / 1e12:.4g} TFLOP"),
        ("the run", f"{costs.steps:,} steps, {costs.flops / 1e18:.4g} EFLOP"),
        *((f"{name} a device", f"{getattr(costs, f'{name}_bytes') / 2**30:.3f} GiB") for name in _PLACES),
        *((f"{count} {kind}", f"{size / 2**20:.4g} MiB a step") for kind, (count, size) in costs.collectives.items()),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


_PLACES = ("parameter", "optimizer", "ema", "batch", "activation", "total")

USABLE = 0.92
"""Of a device's memory: the rest goes to the runtime."""


class Forecast(NamedTuple):
    """What a plan means on an accelerator."""

    accelerator: str
    fits: bool
    usable_bytes: float
    step_seconds: float
    """Of computing alone, at the stated utilisation."""
    message_seconds: float
    """Of the collectives at the full rate of the links, were nothing computed meanwhile."""
    hours: float
    """Of the whole run, computing alone."""
    advice: str
    """Which knob would make it fit; empty where it does."""


def forecast(costs: Plan, accelerator: str, utilisation: float) -> Forecast:
    """What `costs` mean there. Raises ValueError for an unknown accelerator or a utilisation outside (0, 1]."""
    device = named(accelerator)
    if not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation {utilisation}: a share of the peak, above 0 and up to 1")
    usable = USABLE * device.memory * 1e9
    seconds = costs.flops_per_step / (device.peak(costs.dtype) * 1e12 * costs.devices * utilisation)
    sent = sum(size for _, size in costs.collectives.values())
    return Forecast(
        accelerator=device.name,
        fits=costs.total_bytes <= usable,
        usable_bytes=usable,
        step_seconds=seconds,
        message_seconds=sent / (device.link * 1e9),
        hours=seconds * costs.steps / 3600,
        advice="" if costs.total_bytes <= usable else advice(costs, usable),
    )


def advice(costs: Plan, usable: float) -> str:
    """What would make it fit, by proportion: parts of the batch take less for activations, fsdp less for the state."""
    state = costs.parameter_bytes + costs.optimizer_bytes + costs.ema_bytes
    gradient, room = costs.parameter_bytes, usable - costs.batch_bytes
    images = costs.batch_size // costs.devices
    for parts in (n for n in range(2, images + 1) if images % n == 0):
        if state + 2 * gradient + costs.activation_bytes / parts <= room:
            return f"--accumulate {parts * costs.accumulate} would, about; or as many times the devices"
    for more in (2**n for n in range(1, 9)):
        if (state + 2 * gradient) / more + costs.activation_bytes / images <= room:
            return f"fsdp={more * costs.mesh['fsdp']} with --accumulate {images} would, about"
    return "a smaller network, or remat where the experiment has it"


def forecast_table(told: Forecast, costs: Plan, utilisation: float) -> str:
    """The forecast for people."""
    verdict = "fits" if told.fits else f"does not fit: {told.advice}"
    peak = f"{named(told.accelerator).peak(costs.dtype):.0f} TFLOP/s of {costs.dtype}"
    rows = [
        (f"on {costs.devices} {told.accelerator}", f"{told.usable_bytes / 2**30:.1f} GiB usable on each: {verdict}"),
        ("time a step", f"{told.step_seconds:.3g} s at {utilisation:.0%} of {peak}"),
        ("messages a step", f"{told.message_seconds:.3g} s, if nothing were computed meanwhile"),
        ("time of the run", f"{told.hours:.3g} hours"),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


def with_devices(count: int) -> None:
    """Makes JAX pretend to as many devices on a CPU; does nothing where it has already been asked for its devices."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:
        pass
