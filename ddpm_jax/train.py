"""What `train` does: an experiment and a workdir to a finished run, from the start or from where the workdir stands."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ddpm_jax import figures
from ddpm_jax.data import indices, load, stream
from ddpm_jax.experiment import Experiment, init_fn, keys, labels, loss_fn, sample_fn, shapes
from ddpm_jax.training import (
    Action,
    Log,
    StopRequest,
    TrainState,
    checkpoints,
    create,
    fit,
    gather_steps,
    make_train_step,
    sharding,
)

RESIDENT_BYTES = 2**30
"""Data sets up to this size, as bytes of pixels, are uploaded once and stay on the device."""
MAX_STEPS_A_CALL = 64
PREVIEW_IMAGES, PREVIEW_STEPS = 64, 50


def train(experiment: Experiment, folder: Path, stop: StopRequest) -> TrainState:
    """Trains, or goes on where `folder` stands, until the end or until `stop`; the state is saved either way.

    Raises ValueError for what `check` finds.
    """
    mesh = sharding.make_mesh()
    check_batch(experiment, mesh)
    with checkpoints.manager(folder / "checkpoints") as saved:
        state = checkpoints.restore(saved, abstract_state(experiment, mesh)) or initial_state(experiment, mesh)
        first = int(state.step)
        if first >= experiment.num_steps:
            return state
        advance = make_advance(experiment, mesh, experiment.data.open("train"))
        with Log(folder, first) as log, progress_bar(experiment, first) as bar:
            actions = [
                Action(experiment.every.log, report(experiment, log, bar)),
                Action(experiment.every.sample, preview(experiment, log, folder / "samples")),
                Action(experiment.every.save, lambda step, state, _: checkpoints.save(saved, state)),
            ]
            state = fit(state, advance, experiment.num_steps, actions, stop)
        checkpoints.save(saved, state)
    return state


def check(experiment: Experiment) -> None:
    """Raises ValueError or FileNotFoundError for what cannot run: network, batch or data; nothing is written."""
    mesh = sharding.make_mesh()
    check_batch(experiment, mesh)
    abstract_state(experiment, mesh)
    experiment.data.open("train")


def check_batch(experiment: Experiment, mesh: Mesh) -> None:
    """Raises ValueError where the batch does not divide over the devices of the mesh."""
    if experiment.batch_size % mesh.shape["data"]:
        raise ValueError(
            f"a batch of {experiment.batch_size} does not divide over {mesh.shape['data']} devices: "
            "choose a multiple of their number"
        )


def initial_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """The state at step 0, made on the devices: no parameter passes through the host."""

    def make() -> TrainState:
        # the steps fold 0, 1, ... into the same key
        key = jax.random.fold_in(jax.random.key(experiment.seed), 2**32 - 1)
        return create(init_fn(experiment)(key), experiment.optimizer)

    return jax.jit(make, out_shardings=sharding.replicated(mesh), compiler_options=_hurry())()


def _hurry() -> dict[str, int] | None:
    """For what runs once: on a CPU, optimising it takes seconds longer than running it unoptimised."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def abstract_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """The shapes, types and places of the state's arrays, without the arrays."""
    state = jax.eval_shape(lambda params: create(params, experiment.optimizer), shapes(experiment))
    place = sharding.replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


def train_step(experiment: Experiment):
    """``(state, batch)`` -> (state, metrics); the batch holds uint8 images and labels."""
    return make_train_step(
        loss_fn(experiment), experiment.optimizer, experiment.ema_decay, experiment.seed, experiment.gradient
    )


def make_advance(experiment: Experiment, mesh: Mesh, source: Sequence):
    """``(state, step)`` -> the state after one call: of several steps where the data fit on the device, else of one."""
    resident = len(source) * math.prod(experiment.data.image_shape) <= RESIDENT_BYTES
    return (_resident if resident else _streamed)(experiment, mesh, source)


def _resident(experiment: Experiment, mesh: Mesh, source: Sequence):
    count = steps_a_call(experiment, jax.default_backend())
    data = sharding.put(load(source), sharding.replicated(mesh))
    rows = indices(len(source), experiment.batch_size, experiment.seed)
    steps = jax.jit(gather_steps(train_step(experiment)), donate_argnums=0)

    def advance(state: TrainState, step: int):
        # short of a full call where the run was resumed between the periods that `fit` waits for
        index = rows(step, min(count - step % count, experiment.num_steps - step))
        return steps(state, data, sharding.put(index, sharding.split(mesh, axis=1)))

    return advance


def _streamed(experiment: Experiment, mesh: Mesh, source: Sequence):
    one = jax.jit(train_step(experiment), donate_argnums=0)
    batches = None

    def advance(state: TrainState, step: int):
        nonlocal batches
        batches = batches or stream(source, experiment.batch_size, experiment.seed, start=step)
        state, metrics = one(state, sharding.put(next(batches), sharding.split(mesh)))
        return state, jax.tree.map(lambda x: x[None], metrics)

    return advance


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


def progress_bar(experiment: Experiment, first: int) -> tqdm:
    """Steps, loss, images/s and time left; nothing where the output is no terminal."""
    return tqdm(total=experiment.num_steps, initial=first, unit="step", dynamic_ncols=True, disable=None)


def report(experiment: Experiment, log: Log, bar: tqdm):
    """The action that writes the averages to the log and to the screen."""

    def do(step: int, state: TrainState, averages: dict[str, float]) -> None:
        images = averages.pop("steps_per_second") * experiment.batch_size
        log.scalars(step, averages | {"images_per_second": images})
        bar.update(step - bar.n)
        bar.set_postfix(loss=f"{averages['loss']:.4f}", img_s=f"{images:.0f}")
        if bar.disable:
            print(f"step {step}/{experiment.num_steps}  loss {averages['loss']:.4f}  {images:.0f} images/s", flush=True)

    return do


def preview(experiment: Experiment, log: Log, folder: Path):
    """The action that draws samples from the averaged parameters, quickly: the same noise each time."""
    few, eta = min(PREVIEW_STEPS, experiment.process.schedule.num_steps), experiment.preview_eta
    sample = jax.jit(sample_fn(experiment, None if eta is None else few, eta))
    preview_keys = keys(experiment.seed, PREVIEW_IMAGES)
    condition = labels(experiment, PREVIEW_IMAGES)

    def do(step: int, state: TrainState, _: dict[str, Any]) -> None:
        picture = figures.picture(np.asarray(sample(state.ema, preview_keys, condition)))
        folder.mkdir(exist_ok=True)
        figures.save_png(folder / f"step_{step:08d}.png", picture)
        log.picture(step, "samples", picture)

    return do
