"""The cost of a run before it is trained: parameters, FLOPs, bytes on a device and collectives, as XLA counts them."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ddpm_jax.experiment import Experiment
from ddpm_jax.runs.accelerators import named
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.costs import collectives, compute_dtype, tree_bytes
from ddpm_jax.runs.requests import Placement
from ddpm_jax.runs.step_program import (
    abstract_batch,
    abstract_state,
    check_batch,
    jitted,
    step_flops,
    train_step,
)
from ddpm_jax.training import sharding


class Plan(NamedTuple):
    """The cost of one train step. Bytes are those of one device; nothing is allocated to find them."""

    parameters: int
    batch_size: int
    flops_per_step: float
    """Floating-point operations of one step over the whole batch, as XLA counts them before optimization."""
    parameter_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    """All averages of the parameters."""
    batch_bytes: int
    activation_bytes: int
    """XLA's temporary memory for the compiled step: activations, gradients and scratch."""
    total_bytes: int
    steps: int
    flops: float
    """Floating-point operations of the whole run."""
    backend: str
    """The backend that the step was compiled for, whose memory and collectives these are."""
    devices: int
    mesh: Mapping[str, int]
    accumulate: int
    dtype: str
    """The type that the network computes in."""
    collectives: Mapping[str, tuple[int, int]]
    """Kind -> (number in the compiled step, bytes of their results on a device)."""


def plan(experiment: Experiment, placement: Placement | None = None) -> Plan:
    """Compiles the train step for the devices of the mesh, from shapes alone, and returns its cost.

    Raises ValueError for a network that cannot be built or does not fit the data, a batch that does not divide over the
    mesh, or a mesh of more devices than JAX has.
    """
    placement = placement or Placement()
    mesh = _mesh(placement.mesh)
    check_batch(experiment, mesh, placement.accumulate)
    check_network(experiment)
    state, batch = abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    lowered = jitted(experiment, mesh, train_step(experiment, mesh, placement.accumulate)).lower(state, batch)
    per_step = step_flops(experiment, lowered, placement.accumulate)
    program = lowered.compile()
    memory: Any = program.memory_analysis()
    resident = {
        "parameter_bytes": tree_bytes(state.params),
        "optimizer_bytes": tree_bytes(state.opt_state),
        "ema_bytes": tree_bytes(state.averages),
        "batch_bytes": tree_bytes(batch),
        "activation_bytes": memory.temp_size_in_bytes,
    }
    return Plan(
        parameters=sum(x.size for x in jax.tree.leaves(state.params)),
        batch_size=experiment.batch_size,
        flops_per_step=per_step,
        **resident,
        total_bytes=sum(resident.values()) + tree_bytes((state.step, state.history)),
        steps=experiment.num_steps,
        flops=per_step * experiment.num_steps,
        backend=jax.default_backend(),
        devices=mesh.size,
        mesh=dict(mesh.shape),
        accumulate=placement.accumulate,
        dtype=jnp.dtype(compute_dtype(experiment)).name,
        collectives=collectives(program.as_text()),
    )


def _mesh(text: str | None) -> Mesh:
    """The mesh that `text` describes, such as data=8,fsdp=4, over the first devices if JAX has more than it needs."""
    if text is None:
        return sharding.make_mesh()
    sizes, devices = sharding.parse(text), jax.devices()
    wanted = math.prod(sizes.values())
    return sharding.make_mesh(sizes, devices[:wanted] if wanted <= len(devices) else None)


def table(costs: Plan) -> str:
    """The plan as a table."""
    axes = ", ".join(f"{name}={size}" for name, size in costs.mesh.items())
    rows = [
        ("parameters", f"{costs.parameters:,}"),
        ("batch", f"{costs.batch_size:,} images on {costs.devices} {costs.backend} device(s), mesh {axes}"),
        ("a step", f"{costs.flops_per_step / 1e12:.4g} TFLOP"),
        ("the run", f"{costs.steps:,} steps, {costs.flops / 1e18:.4g} EFLOP"),
        *((f"{name} a device", f"{getattr(costs, f'{name}_bytes') / 2**30:.3f} GiB") for name in _KINDS),
        *((f"{count} {kind}", f"{size / 2**20:.4g} MiB a step") for kind, (count, size) in costs.collectives.items()),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


_KINDS = ("parameter", "optimizer", "ema", "batch", "activation", "total")

USABLE = 0.92
"""The share of a device's memory that a program can use; the runtime takes the rest."""


FUSED = (0.2, 1.1)
"""The least and the greatest share of the activations of XLA's CPU compiler that those of accelerators were found to
need: 0.23 and 1.09 for TPU v5e, 0.38 for an H100 (docs/pods.md)."""


class Forecast(NamedTuple):
    """The estimated memory and time of a plan on an accelerator."""

    accelerator: str
    fits: bool
    """Whether it fits with the greatest number of bytes."""
    may_fit: bool
    """Whether it fits with the least number of bytes."""
    usable_bytes: float
    least_bytes: float
    most_bytes: float
    step_seconds: float
    """Time of the computation of a step, at the utilisation given to `forecast`."""
    message_seconds: float
    """Time of the collectives of a step, at the full rate of the links and without overlap."""
    hours: float
    """Time of the computation of the whole run."""
    advice: str
    """The options that should make the run fit; empty if it fits."""


def forecast(costs: Plan, accelerator: str, utilisation: float) -> Forecast:
    """Estimates memory and time of the plan on this accelerator, at this share (0 to 1) of its peak FLOP/s.

    Raises ValueError for an unknown accelerator or a utilisation outside (0, 1].
    """
    device = named(accelerator)
    if not 0 < utilisation <= 1:
        raise ValueError(f"--utilisation {utilisation}: choose a share of the peak, above 0 and up to 1")
    usable = USABLE * device.memory * 1e9
    seconds = costs.flops_per_step / (device.peak(costs.dtype) * 1e12 * costs.devices * utilisation)
    sent = sum(size for _, size in costs.collectives.values())
    least, most = (costs.total_bytes + (share - 1) * costs.activation_bytes for share in FUSED)
    return Forecast(
        accelerator=device.name,
        fits=most <= usable,
        may_fit=least <= usable,
        usable_bytes=usable,
        least_bytes=least,
        most_bytes=most,
        step_seconds=seconds,
        message_seconds=sent / (device.link * 1e9),
        hours=seconds * costs.steps / 3600,
        advice="" if most <= usable else advice(costs, usable),
    )


def advice(costs: Plan, usable: float) -> str:
    """The options that should make the run fit, if --accumulate divides the activations and fsdp divides the state."""
    state = costs.parameter_bytes + costs.optimizer_bytes + costs.ema_bytes
    gradient, room = costs.parameter_bytes, usable - costs.batch_bytes
    images = costs.batch_size // costs.devices // costs.accumulate
    for parts in (n for n in range(2, images + 1) if images % n == 0):
        if state + 2 * gradient + costs.activation_bytes / parts <= room:
            return f"--accumulate {parts * costs.accumulate} should fit, as should {parts} times as many devices"
    for more in (2**n for n in range(1, 9)):
        if (state + 2 * gradient) / more + costs.activation_bytes / images <= room:
            return f"fsdp={more * costs.mesh['fsdp']} with --accumulate {images * costs.accumulate} should fit"
    return "choose a smaller network, or --remat where the experiment has it"


def forecast_table(forecast: Forecast, costs: Plan, utilisation: float) -> str:
    """The forecast as a table."""
    needed = f"{forecast.least_bytes / 2**30:.3g} to {forecast.most_bytes / 2**30:.3g} GiB needed"
    verdict = "fits" if forecast.fits else f"does not fit: {forecast.advice}"
    if forecast.may_fit and not forecast.fits:
        verdict = f"may fit, which --compile answers; if not, {forecast.advice}"
    peak = f"{named(forecast.accelerator).peak(costs.dtype):.0f} TFLOP/s of {costs.dtype}"
    rows = [
        (
            f"on {costs.devices} {forecast.accelerator}",
            f"{forecast.usable_bytes / 2**30:.1f} GiB usable on each, {needed}: {verdict}",
        ),
        ("time a step", f"{forecast.step_seconds:.3g} s at {utilisation:.0%} of {peak}"),
        ("collectives a step", f"{forecast.message_seconds:.3g} s without overlap"),
        ("time of the run", f"{forecast.hours:.3g} hours"),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)


def with_devices(count: int) -> None:
    """Configures JAX with this number of simulated CPU devices; does nothing once JAX has initialized its devices."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:
        pass
