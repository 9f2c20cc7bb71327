"""Export of a run as one StableHLO program that draws images, for processes that have JAX and flatbuffers only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jaxtyping import Array, Int

from ddpm_jax.diffusion import samplers
from ddpm_jax.runs import workdir
from ddpm_jax.runs.requests import ExportRequest
from ddpm_jax.sampling import Run, prior_sample, sampler_fn
from ddpm_jax.system.files import check_writable, whole_file
from ddpm_jax.training.keys import keys


def export_to_file(request: ExportRequest) -> str:
    """Writes the sampler of a run, with its parameters, as a serialized `jax.export` program. Returns a line.

    Raises ValueError for numbers out of range, an output that exists, and a sampler that cannot take fewer than all
    steps.
    """
    if request.num < 1:
        raise ValueError(f"--num must be at least 1, got {request.num}")
    if request.out.exists() and not request.overwrite:
        raise ValueError(f"{request.out} exists: choose another name, or replace it with --overwrite")
    check_writable(request.out)
    workdir.find(request.workdir)
    run = workdir.load(request.workdir, request.weights, request.checkpoint)
    program, inputs = exported(run, request.num, request.sampler, request.platforms)
    with whole_file(request.out) as part:
        part.write_bytes(program.serialize())
    return f"{', '.join(inputs)} -> {request.num} images, for {', '.join(request.platforms)}, in {request.out}"


def exported(
    run: Run, num: int, sampler: str | None = None, platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
) -> tuple[export.Exported, tuple[str, ...]]:
    """The program ``call(seed, first, steps[, labels[, guidance]])`` -> images, and the names of its inputs.

    seed: uint32. first: uint32, the number of the first of the `num` images of the seed. steps: int32, from 1 to T,
    evenly spaced. labels: int32 [num], for class-conditional runs; guidance: float32, for those trained with label
    dropout, which cost two network calls per step also at guidance 1. The images are those of `Run.sampler`, up to
    rounding. The parameters are constants of the program.
    """
    experiment = run.experiment
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "seed": ((), jnp.uint32),
        "first": ((), jnp.uint32),
        "steps": ((), jnp.int32),
    }
    if experiment.num_classes is not None:
        shapes["labels"] = ((num,), jnp.int32)
        if experiment.label_dropout > 0:
            shapes["guidance"] = ((), jnp.float32)
    given = [jax.ShapeDtypeStruct(*each) for each in shapes.values()]
    return export.export(jax.jit(_sampling(run, num, sampler)), platforms=platforms)(*given), tuple(shapes)


def _sampling(run: Run, num: int, name: str | None) -> Callable[..., Any]:
    """The function that is exported."""
    experiment, kind = run.experiment, None if name is None else samplers.SAMPLERS[name]
    T = experiment.process.schedule.num_steps
    made = (kind or experiment.sampler)(experiment.process, experiment.parameterization, lambda *_: None, None)
    samplers.check_times(made, samplers.times(T, min(T, 2)))

    def sample(seed: Array, first: Array, steps: Array, labels: Any = None, guidance: Any = None) -> Any:
        image_keys, steps = keys(seed, num, first), jnp.clip(steps, 1, T)
        rule = sampler_fn(experiment, kind, guidance)(run.params, labels)
        x_T = prior_sample(experiment, image_keys)
        x_0, _ = samplers.stretch(image_keys, rule, x_T, rule.init(x_T), even_times(T, steps), 0, steps)
        return experiment.encoding.decode(x_0)

    return sample


def even_times(num_steps: int, count: Array) -> Int[Array, " {num_steps}+1"]:
    """The times of `samplers.times` for a traced `count`, followed by zeros."""
    whole, rest = jnp.divmod(num_steps * jnp.maximum(count - jnp.arange(num_steps + 1), 0), count)
    return whole + ((2 * rest > count) | ((2 * rest == count) & (whole % 2 == 1)))  # halves to even numbers
