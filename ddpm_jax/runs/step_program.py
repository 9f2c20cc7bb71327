"""The train step of an experiment as a compiled program over the devices of a mesh, fed from memory or a stream."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ddpm_jax.data import indices, load_all, stream
from ddpm_jax.diffusion import losses
from ddpm_jax.experiment import Experiment, decays, first_state, loss_fn, recorded_loss_fn, shapes
from ddpm_jax.runs import accelerators
from ddpm_jax.runs.costs import compute_dtype, flops
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import Execution
from ddpm_jax.training import TrainState, accumulate, gather_steps, make_train_step, sharding
from ddpm_jax.training.keys import TRAIN, root_key

RESIDENT_BYTES = 2**30
"""Data sets of at most this size, at one byte per element, are uploaded once and stay on the device."""
MAX_STEPS_A_CALL = 64


def make_mesh(text: str | None) -> Mesh:
    """The mesh that `text` describes, such as data=4,fsdp=2; None: all devices on data.

    Raises ValueError for text of another form, or sizes that do not fit the number of devices.
    """
    return sharding.make_mesh(None if text is None else sharding.parse(text))


def check_batch(experiment: Experiment, mesh: Mesh, parts: int = 1) -> None:
    """Raises ValueError unless the batch divides evenly into `parts` and over the devices of the mesh."""
    if parts < 1:
        raise ValueError(f"--accumulate must be at least 1, got {parts}")
    if experiment.batch_size % (parts * mesh.size):
        inside = f" in {parts} parts" if parts > 1 else ""
        raise ValueError(
            f"a batch of {experiment.batch_size} does not divide over {mesh.size} devices{inside}: "
            f"choose a batch size that is a multiple of {parts * mesh.size}"
        )


def abstract_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """The training state as shapes, types and shardings, without arrays."""
    state = jax.eval_shape(lambda params: first_state(experiment, params), shapes(experiment))
    same = sharding.replicated(mesh)
    history = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=same), state.history)
    return sharding.with_shardings(state, mesh)._replace(history=history)


def abstract_batch(experiment: Experiment, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch as shapes, types and shardings, without arrays."""
    data, spread = experiment.data, sharding.batch_sharding(mesh)
    images = jax.ShapeDtypeStruct((experiment.batch_size, *data.image_shape), data.dtype, sharding=spread)
    if data.num_classes is None:
        return {"image": images}
    return {"image": images, "label": jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32, sharding=spread)}


def train_step(experiment: Experiment, mesh: Mesh, parts: int = 1, skip_nan: bool = False):
    """Returns ``step(state, batch)`` -> (state, metrics), not yet jitted, which splits the batch into `parts`.

    With `skip_nan` it skips updates whose loss or gradient is not finite.
    """
    gradient, kind = experiment.gradient, experiment.loss
    remember = kind.update if isinstance(kind, losses.Importance) else None
    loss = loss_fn(experiment) if remember is None else recorded_loss_fn(experiment)
    return make_train_step(
        lambda params, *rest, **history: loss(sharding.all_gathered(params, mesh), *rest, **history),
        experiment.optimizer,
        decays(experiment),
        root_key(experiment.seed, TRAIN),
        accumulate(parts, gradient) if parts > 1 else gradient,
        skip_nan,
        remember,
    )


def jitted(experiment: Experiment, mesh: Mesh, step: Callable) -> Any:
    """The step under jit. The state is donated and keeps its shardings."""
    kept = sharding.shardings(abstract_state(experiment, mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=(kept, sharding.replicated(mesh)))


class Program(NamedTuple):
    """The compiled train step with its data."""

    advance: Callable[[TrainState, int], tuple[TrainState, Any]]
    """``advance(state, step)`` -> (state, metrics) of one call: several steps for resident data, one for a stream."""
    speed: Callable[[float], dict[str, float]]
    """``speed(steps_per_second)`` -> the speed in other units, empty before the first step: see `Compiled.speed`."""
    length: Callable[[int], int] = lambda step: 1
    """``length(step)`` -> the number of steps in the call of `advance` that starts at this step."""


def make_program(
    experiment: Experiment,
    mesh: Mesh,
    source: Sequence,
    execution: Execution | None = None,
    reporter: Reporter | None = None,
) -> Program:
    """The program for this data set, kept on the device up to `RESIDENT_BYTES` and streamed if it is larger.

    The reporter receives the progress of loading a data set that is kept on the device.
    """
    execution, reporter = execution or Execution(), reporter or Reporter()
    size = len(source) * math.prod(experiment.data.image_shape) * experiment.data.dtype.itemsize
    if size > RESIDENT_BYTES:
        return _streamed(experiment, mesh, source, execution)
    return _resident(experiment, mesh, source, execution, reporter)


def _resident(
    experiment: Experiment, mesh: Mesh, source: Sequence, execution: Execution, reporter: Reporter
) -> Program:
    count = steps_a_call(experiment, jax.default_backend())
    data = sharding.to_devices(load_all(source, execution.workers, reporter.track), sharding.replicated(mesh))
    rows = indices(len(source), experiment.batch_size, experiment.seed)
    step = train_step(experiment, mesh, execution.accumulate, execution.on_nan == "skip")
    compiled = Compiled(jitted(experiment, mesh, gather_steps(step)), experiment, mesh, execution.accumulate)

    def length(step: int) -> int:
        # fewer steps than `count` after a resume between two of its multiples, and at the end of the run
        return min(count - step % count, experiment.num_steps - step)

    def advance(state: TrainState, step: int):
        index = rows(step, length(step))
        return compiled(state, data, sharding.to_devices(index, sharding.batch_sharding(mesh, axis=1)))

    return Program(advance, compiled.speed, length)


def _streamed(experiment: Experiment, mesh: Mesh, source: Sequence, execution: Execution) -> Program:
    step = train_step(experiment, mesh, execution.accumulate, execution.on_nan == "skip")
    compiled = Compiled(jitted(experiment, mesh, step), experiment, mesh, execution.accumulate)
    size, spread = experiment.batch_size, sharding.batch_sharding(mesh)
    rows, batches = sharding.local_rows(size, spread), None

    def advance(state: TrainState, step: int):
        nonlocal batches
        batches = batches or stream(source, size, experiment.seed, step, rows, execution.workers)
        state, metrics = compiled(state, sharding.rows_to_devices(next(batches), rows, size, spread))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return Program(advance, compiled.speed)


class Compiled:
    """A jitted step that is compiled once for each set of argument shapes, and whose FLOPs are counted."""

    def __init__(self, step: Any, experiment: Experiment, mesh: Mesh, parts: int = 1):
        self._step, self._experiment, self._parts, self._devices = step, experiment, parts, mesh.size
        self._compiled, self._lowered, self._flops = {}, None, 0.0
        device = accelerators.of_kind(mesh.devices.flat[0].device_kind)
        self._peak = None if device is None else device.peak(compute_dtype(experiment))

    def __call__(self, state: TrainState, *rest: Any) -> Any:
        key = tuple(x.shape for x in jax.tree.leaves(rest))
        if key not in self._compiled:
            self._lowered = self._step.lower(state, *rest)
            self._compiled[key] = self._lowered.compile()
        return self._compiled[key](state, *rest)

    def speed(self, steps_per_second: float) -> dict[str, float]:
        """Returns "tflops_per_second" of all devices, and "utilisation", its share of their peak, where known."""
        if self._lowered is not None:  # counted here, while the device computes
            self._flops, self._lowered = step_flops(self._experiment, self._lowered, self._parts), None
        if not self._flops:
            return {}
        rate = self._flops * steps_per_second / 1e12
        share = {"utilisation": rate / (self._peak * self._devices)} if self._peak else {}
        return {"tflops_per_second": rate, **share}


def step_flops(experiment: Experiment, lowered: Any, parts: int = 1) -> float:
    """Floating-point operations of a step over all devices, as XLA counts them before optimization.

    `lowered` is the lowered function of one or more steps, whose batches are split into `parts`. Only XLA's CPU backend
    counts: a step for another device is lowered again for the host's CPU, and the result is 0 where ``JAX_PLATFORMS``
    excludes the CPU.
    """
    counted = flops(lowered)
    # XLA counts the body of a loop once, over steps as over parts
    return host_flops(experiment) if counted is None else counted * parts


def host_flops(experiment: Experiment) -> float:
    """Floating-point operations of a step, counted on the host's CPU; 0 where ``JAX_PLATFORMS`` excludes the CPU."""
    try:
        mesh = sharding.make_mesh({"data": 1}, jax.local_devices(backend="cpu")[:1])
    except RuntimeError:
        return 0.0
    step = jitted(experiment, mesh, train_step(experiment, mesh))
    return flops(step.lower(abstract_state(experiment, mesh), abstract_batch(experiment, mesh))) or 0.0


def span(profile: str | None, num_steps: int | None = None) -> tuple[int, int] | None:
    """The steps (START, STOP) of the option START:STOP.

    Raises ValueError unless both are integers with START < STOP, and START < `num_steps` where that is given.
    """
    if profile is None:
        return None
    first, _, last = profile.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ValueError(f"--profile {profile}: write it as START:STOP, the first step and a later one to stop at")
    if num_steps is not None and int(first) >= num_steps:
        raise ValueError(f"--profile {profile}: the run has {num_steps} steps only")
    return int(first), int(last)


@contextmanager
def profiled(program: Program, folder: Path, span: tuple[int, int] | None) -> Iterator[Callable]:
    """`advance` of the program, with a trace of the calls that contain a step of the span, if there are any.

    The trace is written to `folder`, for TensorBoard or XProf, after the last of these calls, or at the end of the
    context if the run ends earlier, for whatever reason.
    """
    first, last = span or (0, 0)
    running, pending = False, None

    def finish() -> None:
        nonlocal running
        running = False
        try:
            jax.block_until_ready(pending)
        finally:
            jax.profiler.stop_trace()

    def traced(state: TrainState, step: int):
        nonlocal running, pending
        end = step + program.length(step)
        if not running and step < last and first < end:
            jax.profiler.start_trace(str(folder))
            running = True
        state, pending = program.advance(state, step)
        if running and end >= last:
            finish()
        return state, pending

    try:
        yield program.advance if span is None else traced
    finally:
        if running:
            finish()


def steps_a_call(experiment: Experiment, backend: str) -> int:
    """The number of steps in one call, as a `lax.scan`: a divisor of all periods of the run, at most 64; 1 on a CPU.

    Inside a loop XLA's CPU backend computes the weight gradient of a convolution many times slower
    (github.com/jax-ml/jax/issues/12868).
    """
    if backend == "cpu":
        return 1
    every = experiment.every
    common = math.gcd(*(period for period in (every.log, every.sample, every.save, every.evaluate) if period))
    return max(n for n in range(1, MAX_STEPS_A_CALL + 1) if common % n == 0)
