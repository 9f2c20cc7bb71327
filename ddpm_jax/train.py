"""What `train` does: an experiment and a workdir to a finished run, from the start or from where the workdir stands."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ddpm_jax import figures
from ddpm_jax.advance import DEFAULT, Setup, abstract_state, check_batch, make_advance, profiled
from ddpm_jax.experiment import Experiment, init_fn, keys, labels, sample_fn
from ddpm_jax.training import (
    Action,
    Diverged,
    Log,
    StopRequest,
    TrainState,
    checkpoints,
    create,
    distributed,
    fit,
    sharding,
)

PREVIEW_IMAGES, PREVIEW_STEPS = 64, 50


def train(experiment: Experiment, folder: Path, stop: StopRequest, setup: Setup = DEFAULT) -> TrainState:
    """Trains, or goes on where `folder` stands, until the end or until `stop`; the state is saved either way.

    Raises ValueError for what `check` finds, and for a loss that is not a number.
    """
    mesh = sharding.make_mesh(setup.mesh)
    leads = distributed.leads()
    with checkpoints.manager(folder / "checkpoints") as saved:
        state = checkpoints.restore(saved, abstract_state(experiment, mesh)) or initial_state(experiment, mesh)
        first = int(state.step)
        if first >= experiment.num_steps:
            return state
        call = make_advance(experiment, mesh, experiment.data.open("train"), setup)
        with Log(folder if leads else None, first) as log, progress_bar(experiment, first, leads) as bar:
            say(bar, told_of(mesh, state))
            actions = [
                Action(experiment.every.log, report(experiment, log, bar, call.speed)),
                Action(experiment.every.sample, preview(experiment, mesh, log, folder / "samples")),
                Action(experiment.every.save, lambda step, state, _: checkpoints.save(saved, state)),
            ]
            advance = profiled(call.advance, folder / "profile", setup.profile)
            try:
                state = fit(state, advance, experiment.num_steps, actions, stop)
            except Diverged as error:
                raise ValueError(_after_divergence(error, saved.latest_step(), folder)) from None
        checkpoints.save(saved, state)
    return state


def _after_divergence(error: Diverged, good: int | None, folder: Path) -> str:
    kept = "no checkpoint was saved yet" if good is None else f"the last good checkpoint in {folder} is step {good}"
    return f"{error}: {kept}. A smaller --learning-rate may help; --on-nan skip leaves such updates out"


def told_of(mesh: Mesh, state: TrainState) -> str:
    """What the mesh does with the parameters, in a line."""
    leaves = jax.tree.leaves(state.params)
    total, split = (sum(x.size for x in leaves if kind(x)) for kind in (lambda x: True, _is_split))
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    shared = f", {split:,} of them split over fsdp" if mesh.shape["fsdp"] > 1 else ""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} {jax.devices()[0].device_kind} device(s){processes}, mesh {axes}; {total:,} parameters{shared}"


def _is_split(x: jax.Array) -> bool:
    return not x.sharding.is_fully_replicated


def check(experiment: Experiment, setup: Setup = DEFAULT) -> None:
    """Raises ValueError or FileNotFoundError for what cannot run: network, batch or data; nothing is written."""
    mesh = sharding.make_mesh(setup.mesh)
    check_batch(experiment, mesh, setup.accumulate)
    if setup.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {setup.workers}")
    if setup.profile and not 0 <= setup.profile[0] < setup.profile[1]:
        raise ValueError(f"--profile {setup.profile[0]}:{setup.profile[1]}: give the first step and the one to stop at")
    abstract_state(experiment, mesh)
    experiment.data.open("train")


def initial_state(experiment: Experiment, mesh: Mesh) -> TrainState:
    """The state at step 0, made on the devices: no parameter passes through the host."""

    def make() -> TrainState:
        # the steps fold 0, 1, ... into the same key
        key = jax.random.fold_in(jax.random.key(experiment.seed), 2**32 - 1)
        return create(init_fn(experiment)(key), experiment.optimizer)

    places = sharding.places(abstract_state(experiment, mesh))
    return jax.jit(make, out_shardings=places, compiler_options=_hurry())()


def _hurry() -> dict[str, int] | None:
    """For what runs once: on a CPU, optimising it takes seconds longer than running it unoptimised."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def progress_bar(experiment: Experiment, first: int, leads: bool = True) -> tqdm:
    """Steps, loss, images/s and time left; nothing where the output is no terminal, or another process tells it."""
    hidden = None if leads else True
    return tqdm(total=experiment.num_steps, initial=first, unit="step", dynamic_ncols=True, disable=hidden)


def say(bar: tqdm, line: str) -> None:
    """A line above the bar, or where that would be; by one process."""
    if not distributed.leads():
        return
    if bar.disable:
        print(line, flush=True)
    else:
        bar.write(line)


def report(experiment: Experiment, log: Log, bar: tqdm, speed: Callable[[float], dict[str, float]]):
    """The action that writes the averages to the log and to the screen."""

    def do(step: int, state: TrainState, averages: dict[str, float]) -> None:
        rate = averages.pop("steps_per_second")
        images = rate * experiment.batch_size
        log.scalars(step, averages | {"images_per_second": images} | speed(rate))
        bar.update(step - bar.n)
        bar.set_postfix(loss=f"{averages['loss']:.4f}", img_s=f"{images:.0f}")
        skipped = f"  {averages['skipped']:.0f} updates skipped" if "skipped" in averages else ""
        if bar.disable or skipped:
            rates = f"{images:.0f} images/s" + "".join(_TOLD[name].format(x) for name, x in speed(rate).items())
            say(bar, f"step {step}/{experiment.num_steps}  loss {averages['loss']:.4f}  {rates}{skipped}")

    return do


_TOLD = {"tflops_per_second": "  {:.3g} TFLOP/s", "utilisation": " ({:.0%} of peak)"}


def preview(experiment: Experiment, mesh: Mesh, log: Log, folder: Path):
    """The action that draws samples from the averaged parameters, quickly: the same noise each time."""
    few, eta = min(PREVIEW_STEPS, experiment.process.schedule.num_steps), experiment.preview_eta
    draw = sample_fn(experiment, None if eta is None else few, eta)
    condition = labels(experiment, PREVIEW_IMAGES)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def sample(params):
        return draw(params, keys(experiment.seed, PREVIEW_IMAGES), condition)

    def do(step: int, state: TrainState, _: dict[str, Any]) -> None:
        picture = figures.picture(np.asarray(sample(state.ema)))
        if distributed.leads():
            folder.mkdir(exist_ok=True)
            figures.save_png(folder / f"step_{step:08d}.png", picture)
            log.picture(step, "samples", picture)

    return do
