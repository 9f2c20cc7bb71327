"""The cost of an experiment's programs on an accelerator, from the accelerator's own compiler."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from ddpm_jax.experiment import Experiment, bound_fn, shapes
from ddpm_jax.runs import compilers
from ddpm_jax.runs.accelerators import Accelerator
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.compilers import Compiled
from ddpm_jax.runs.costs import compute_dtype, flops
from ddpm_jax.runs.plan import USABLE
from ddpm_jax.runs.report import fitting_batch
from ddpm_jax.runs.requests import Placement
from ddpm_jax.runs.sample import default_batch_size
from ddpm_jax.runs.step_program import (
    abstract_batch,
    abstract_state,
    check_batch,
    host_flops,
    jitted,
    train_step,
)
from ddpm_jax.sampling import sample_fn
from ddpm_jax.training import sharding

TIMES = 50
"""The number of chain terms of the bound."""


class ProgramCost(NamedTuple):
    """A program on an accelerator. The times are those at peak rates."""

    program: str
    """"train step", "sampler" or "bound"."""
    accelerator: str
    devices: int
    images: int
    """The number of images that the program works on, over all devices."""
    flops: float
    """Floating-point operations over all devices, as XLA counts them before optimization."""
    compiled: Compiled
    fits: bool
    compute_seconds: float
    memory_seconds: float
    message_seconds: float

    @property
    def seconds(self) -> float:
        """The time that computation and memory allow (the roofline). Messages, which may overlap, are not in it."""
        return max(self.compute_seconds, self.memory_seconds)


def device_plan(experiment: Experiment, placement: Placement, accelerator: Accelerator) -> Iterator[ProgramCost]:
    """Yields the costs of train step, sampler and bound, each as soon as it is compiled; a classifier has the first.

    The train step is that of the mesh; sampler and bound are the programs of one device at its default batch (256
    images and 120 examples up to 64x64), with all steps and with 50 terms. Raises ValueError if the compiler is not
    installed or refuses a program.
    """
    sizes = {"data": 1} if placement.mesh is None else sharding.parse(placement.mesh)
    found = compilers.devices(accelerator, math.prod(sizes.values()))
    mesh = sharding.make_mesh(sizes, found)
    check_batch(experiment, mesh, placement.accumulate)
    check_network(experiment)
    lowered = jitted(experiment, mesh, train_step(experiment, mesh, placement.accumulate)).lower(
        abstract_state(experiment, mesh), abstract_batch(experiment, mesh)
    )
    counted = host_flops(experiment)
    yield _cost("train step", experiment, accelerator, mesh.size, experiment.batch_size, counted, lowered)
    if experiment.is_classifier:
        return
    here, cpu, T = found[0], jax.local_devices(backend="cpu")[0], experiment.process.schedule.num_steps
    # XLA counts the body of a loop once; the bound evaluates the network in its loop and, for the decoder, once outside
    shape = experiment.data.image_shape
    for program, images, share, lower in (
        ("sampler", default_batch_size(shape, cpu=False), T, _sampler),
        ("bound", fitting_batch(shape), (min(TIMES, T - 1) + 1) / 2, _bound),
    ):
        counted = share * (flops(lower(experiment, cpu, images)) or 0.0)
        yield _cost(program, experiment, accelerator, 1, images, counted, lower(experiment, here, images))


def _cost(
    program: str, experiment: Experiment, device: Accelerator, count: int, images: int, counted: float, lowered: Any
) -> ProgramCost:
    made = compilers.compiled(lowered, device)
    sent = sum(size for _, size in made.collectives.values())
    return ProgramCost(
        program,
        device.name,
        count,
        images,
        counted,
        made,
        made.total_bytes <= USABLE * device.memory * 1e9,
        counted / (device.peak(compute_dtype(experiment)) * 1e12 * count),
        made.traffic_bytes / (device.bandwidth * 1e9),
        sent / (device.link * 1e9),
    )


def _on(device: Any, tree: Any) -> Any:
    here = SingleDeviceSharding(device)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)


def _keys(num: int) -> Any:
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num))


def _sampler(experiment: Experiment, device: Any, num: int) -> Any:
    """The sampler of one device, lowered, with all its steps."""
    sample = sample_fn(experiment)
    condition = None if experiment.num_classes is None else jax.ShapeDtypeStruct((num,), jnp.int32)
    arguments = _on(device, (*sample.args, shapes(experiment), _keys(num), condition))
    return sample.func.lower(*arguments)  # type: ignore[attr-defined]


def _bound(experiment: Experiment, device: Any, num: int) -> Any:
    """The bound of one device, lowered, at a few of the times."""
    evaluated = dataclasses.replace(experiment, batch_size=num)
    batch = abstract_batch(evaluated, sharding.make_mesh({"data": 1}, [device]))
    count = min(TIMES, experiment.process.schedule.num_steps - 1)
    times = jax.ShapeDtypeStruct((count, num), jnp.int32), jax.ShapeDtypeStruct((count, num), jnp.float32)
    arguments = _on(device, (shapes(experiment), _keys(num), batch, *times))
    return jax.jit(bound_fn(experiment)).lower(*arguments)


def cost_table(cost: ProgramCost) -> str:
    """The cost of a program as a table."""
    made, gib = cost.compiled, 2**30
    share = cost.compute_seconds / cost.seconds if cost.seconds else 0.0
    bounded = "computation" if cost.compute_seconds >= cost.memory_seconds else "memory"
    parts = f"arguments {made.argument_bytes / gib:.3f}, temporaries {made.temporary_bytes / gib:.3f}"
    verdict = "fits" if cost.fits else "does not fit"
    where = f"{cost.images:,} images on {cost.devices} {cost.accelerator}"
    rows = [
        (cost.program, f"{where}, compiled in {made.compile_seconds:.0f} s"),
        ("memory a device", f"{made.total_bytes / gib:.3f} GiB ({parts}): {verdict}"),
        ("traffic a device", f"{made.traffic_bytes / 1e9:.4g} GB, {cost.memory_seconds:.3g} s at full bandwidth"),
        ("arithmetic", f"{cost.flops / 1e12:.4g} TFLOP, {cost.compute_seconds:.3g} s at peak"),
        *((f"{count} {kind}", f"{size / 2**20:.4g} MiB a device") for kind, (count, size) in made.collectives.items()),
        ("messages", f"{cost.message_seconds:.3g} s without overlap"),
        ("roofline", f"{cost.seconds:.3g} s, bounded by {bounded}: at most {share:.0%} of peak"),
    ]
    return "\n".join(f"{name:22} {value}" for name, value in rows)
