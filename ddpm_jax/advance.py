"""How a run advances: the step over the devices of a mesh, fed from memory or from a stream, and what it costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ddpm_jax import hardware
from ddpm_jax.data import indices, load, stream
from ddpm_jax.data.dataset import WORKERS
from ddpm_jax.experiment import Experiment, loss_fn, shapes
from ddpm_jax.training import TrainState, accumulate, create, gather_steps, make_train_step, sharding

RESIDENT_BYTES = 2**30
"""Data sets up to this size, as bytes of pixels, are uploaded once and stay on the device."""
MAX_STEPS_A_CALL = 64


class Setup(NamedTuple):
    """How a run is carried out: it may differ each time the run goes on."""

    mesh: Mapping[str, int] | None = None
    """Devices on each axis; all of them on data by default."""
    accumulate: int = 1
    """Parts that each batch is computed in, one after the other."""
    on_nan: Literal["stop", "skip"] = "stop"
    workers: int = WORKERS
    profile: tuple[int, int] | None = None
    """The steps that a trace is written of, from the first on and before the second."""


DEFAULT = Setup()


def check_batch(experiment: Experiment, mesh: Mesh, parts: int = 1) -> None:
    """Raises ValueError where the batch does not divide over the parts that it is computed in and the devices."""
    if parts < 1:
        raise ValueError(f"--accumulate must be at least 1, got {parts}")
    if experiment.batch_size % (parts * mesh.size):
        inside = f" in {parts} parts" if parts > 1 else ""
        raise ValueError(
            f"a batch of {experiment.batch_size} does not divide over {mesh.size} devices{inside}: "
            f"choose a multiple of {parts * mesh.size}"
        )


def abstract_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """The shapes, types and places of the state's arrays, without the arrays."""
    return sharding.place(jax.eval_shape(lambda params: create(params, experiment.optimizer), shapes(experiment)), mesh)


def abstract_batch(experiment: Experiment, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes, types and places of one batch."""
    place, stored = sharding.split(mesh), jnp.float32 if experiment.data.levels is None else jnp.uint8
    images = jax.ShapeDtypeStruct((experiment.batch_size, *experiment.data.image_shape), stored, sharding=place)
    if experiment.data.num_classes is None:
        return {"image": images}
    return {"image": images, "label": jax.ShapeDtypeStruct((experiment.batch_size,), jnp.int32, sharding=place)}


def train_step(experiment: Experiment, mesh: Mesh, setup: Setup = DEFAULT):
    """``(state, batch)`` -> (state, metrics); the batch holds uint8 images and labels."""
    gradient, loss = experiment.gradient, loss_fn(experiment)
    return make_train_step(
        lambda params, key, batch: loss(sharding.gathered(params, mesh), key, batch),
        experiment.optimizer,
        experiment.ema_decay,
        experiment.seed,
        accumulate(setup.accumulate, gradient) if setup.accumulate > 1 else gradient,
        skip_nan=setup.on_nan == "skip",
    )


def compiled(experiment: Experiment, mesh: Mesh, step: Callable) -> Any:
    """A step under jit, whose state stays where it is."""
    places = sharding.places(abstract_state(experiment, mesh))
    return jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))


class Call(NamedTuple):
    """How a run advances."""

    advance: Callable[[TrainState, int], tuple[TrainState, Any]]
    """``(state, step)`` -> the state after one call: of several steps where the data fit on the device, else of one."""
    speed: Callable[[float], dict[str, float]]
    """Steps a second -> what to tell of it, once there was a call."""


def make_advance(experiment: Experiment, mesh: Mesh, source: Sequence, setup: Setup = DEFAULT) -> Call:
    """Of data that fit on the device, or of a stream."""
    resident = len(source) * math.prod(experiment.data.image_shape) <= RESIDENT_BYTES
    return (_resident if resident else _streamed)(experiment, mesh, source, setup)


def _resident(experiment: Experiment, mesh: Mesh, source: Sequence, setup: Setup) -> Call:
    count = steps_a_call(experiment, jax.default_backend())
    data = sharding.put(load(source), sharding.replicated(mesh))
    rows = indices(len(source), experiment.batch_size, experiment.seed)
    steps = compiled(experiment, mesh, gather_steps(train_step(experiment, mesh, setup)))
    program = Program(steps, experiment, mesh, setup)

    def advance(state: TrainState, step: int):
        # short of a full call where the run was resumed between the periods that `fit` waits for
        index = rows(step, min(count - step % count, experiment.num_steps - step))
        return program(state, data, sharding.put(index, sharding.split(mesh, axis=1)))

    return Call(advance, program.speed)


def _streamed(experiment: Experiment, mesh: Mesh, source: Sequence, setup: Setup) -> Call:
    program = Program(compiled(experiment, mesh, train_step(experiment, mesh, setup)), experiment, mesh, setup)
    size, place = experiment.batch_size, sharding.split(mesh)
    rows, batches = sharding.own_rows(size, place), None

    def advance(state: TrainState, step: int):
        nonlocal batches
        batches = batches or stream(source, size, experiment.seed, step, rows, setup.workers)
        state, metrics = program(state, sharding.put_own(next(batches), rows, size, place))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return Call(advance, program.speed)


class Program:
    """A step, compiled at the first call with each shape of what it is given besides the state."""

    def __init__(self, step: Any, experiment: Experiment, mesh: Mesh, setup: Setup):
        self._step, self._experiment, self._setup, self._devices = step, experiment, setup, mesh.size
        self._compiled, self._lowered, self._flops = {}, None, 0.0
        device = hardware.of_kind(mesh.devices.flat[0].device_kind)
        self._peak = None if device is None else device.peak(compute_dtype(experiment))

    def __call__(self, state: TrainState, *rest: Any) -> Any:
        key = tuple(x.shape for x in jax.tree.leaves(rest))
        if key not in self._compiled:
            self._lowered = self._step.lower(state, *rest)
            self._compiled[key] = self._lowered.compile()
        return self._compiled[key](state, *rest)

    def speed(self, steps_per_second: float) -> dict[str, float]:
        """TFLOP/s of all devices, and the share of their peak where that is known; nothing where none is known."""
        if self._lowered is not None:  # counted here, while the device computes what comes next
            self._flops, self._lowered = step_flops(self._experiment, self._lowered, self._setup), None
        if not self._flops:
            return {}
        rate = self._flops * steps_per_second / 1e12
        told = {"utilisation": rate / (self._peak * self._devices)} if self._peak else {}
        return {"tflops_per_second": rate, **told}


def compute_dtype(experiment: Experiment) -> Any:
    """What the network computes in."""
    return getattr(experiment.network, "dtype", np.float32)


def step_flops(experiment: Experiment, lowered: Any, setup: Setup = DEFAULT) -> float:
    """Floating-point operations of a step over all devices, as XLA counts them before optimisation.

    `lowered` is a function of one or more such steps. Only a CPU's compiler counts: where the step is for another
    device it is lowered anew for this host's, and 0 where JAX was told to do without that (``JAX_PLATFORMS``).
    """
    counted = flops(lowered)
    if counted is not None:
        return counted * setup.accumulate  # a loop's body counts once, of steps as of the parts of a batch
    try:
        mesh = sharding.make_mesh({"data": 1}, jax.local_devices(backend="cpu")[:1])
    except RuntimeError:
        return 0.0
    step = compiled(experiment, mesh, train_step(experiment, mesh))
    return flops(step.lower(abstract_state(experiment, mesh), abstract_batch(experiment, mesh))) or 0.0


def flops(lowered: Any) -> float | None:
    """Floating-point operations of a lowered function; None where it is for a device whose compiler does not count."""
    cost = lowered.cost_analysis()
    return None if cost is None else float((cost[0] if isinstance(cost, list) else cost)["flops"])


def profiled(advance: Callable, folder: Path, span: tuple[int, int] | None) -> Callable:
    """`advance`, with a trace of the calls that begin within the span written to `folder`, for TensorBoard or XProf."""
    if span is None:
        return advance
    running = False

    def traced(state: TrainState, step: int):
        nonlocal running
        if not running and span[0] <= step < span[1]:
            jax.profiler.start_trace(str(folder))
            running = True
        state, metrics = advance(state, step)
        if running and step + len(metrics["loss"]) >= span[1]:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            running = False
        return state, metrics

    return traced


def steps_a_call(experiment: Experiment, backend: str) -> int:
    """As many steps in one `lax.scan` as the periods of the run allow; one on CPU.

    Inside a loop XLA's CPU backend computes the weight gradient of a convolution many times slower
    (github.com/jax-ml/jax/issues/12868).
    """
    if backend == "cpu":
        return 1
    every = experiment.every
    common = math.gcd(*(period for period in (every.log, every.sample, every.save) if period))
    return max(n for n in range(1, MAX_STEPS_A_CALL + 1) if common % n == 0)
