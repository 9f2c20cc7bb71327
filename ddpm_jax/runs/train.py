"""Training: from an experiment and a workdir to a finished run, from step 0 or from the newest checkpoint."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ddpm_jax import figures
from ddpm_jax.data.dataset import check_examples
from ddpm_jax.experiment import Experiment, Params, first_history, first_state, init_fn, labels
from ddpm_jax.runs import periodic
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import Execution
from ddpm_jax.runs.step_program import abstract_state, check_batch, make_mesh, make_program, profiled, span
from ddpm_jax.sampling import sample_fn
from ddpm_jax.system import cpu
from ddpm_jax.training import (
    EMA,
    Action,
    Diverged,
    Log,
    StopRequest,
    TrainState,
    checkpoints,
    distributed,
    fit,
    sharding,
    snapshots,
)
from ddpm_jax.training.keys import INIT, keys, root_key

PREVIEW_IMAGES, PREVIEW_STEPS = 64, 50


def train(
    experiment: Experiment,
    folder: Path,
    stop: StopRequest,
    execution: Execution | None = None,
    reporter: Reporter | None = None,
    start: Params | None = None,
) -> TrainState:
    """Trains to the end, or until `stop`, from the newest checkpoint in `folder` if there is one. Saves the state.

    Without a checkpoint it begins with the parameters `start`, by default random ones. Raises Diverged for a loss or
    gradient that is not finite. Call `check` first, which finds other mistakes.
    """
    execution, reporter = execution or Execution(), reporter or Reporter()
    mesh, is_leader = make_mesh(execution.mesh), distributed.is_leader()
    with checkpoints.manager(folder / "checkpoints") as saved:
        state = restored(saved, experiment, mesh) or initial_state(experiment, mesh, start)
        first = int(state.step)
        if first >= experiment.num_steps:
            return state
        program = make_program(experiment, mesh, experiment.data.open("train"), execution, reporter)
        reporter.line(placement(mesh, state))
        steps = span(execution.profile)
        if steps is not None and steps[1] <= first:
            reporter.line(f"--profile {execution.profile}: no trace is written, since the run resumes at step {first}")
        reporter.start_training(first, experiment.num_steps)
        with (
            Log(folder if is_leader else None, first) as log,
            profiled(program, folder / "profile", steps) as advance,
            snapshots.written(folder / "averages", state, snapshot_period(experiment)) as snapshot,
            periodic.evaluated(experiment, mesh, execution, folder, log, reporter) as evaluation,
        ):
            actions = [
                snapshot,
                Action(experiment.every.log, report(experiment, log, reporter, program.speed)),
                *previews(experiment, mesh, log, folder / "samples"),
                evaluation,
                Action(experiment.every.save, lambda step, state, _: checkpoints.save(saved, state)),
                Action(cpu.RETURN_EVERY if jax.default_backend() == "cpu" else 0, lambda *_: cpu.return_memory()),
            ]
            try:
                state = fit(state, advance, experiment.num_steps, actions, stop)
            except Diverged as error:
                raise Diverged(_after_divergence(error, saved.latest_step(), folder)) from None
            finally:
                reporter.finish_training()
        checkpoints.save(saved, state)
    return state


def restored(saved: Any, experiment: Experiment, mesh: Mesh) -> TrainState | None:
    """The newest undamaged state, with an empty history if the checkpoint has none; None if there is no checkpoint."""
    state = checkpoints.restore(saved, abstract_state(experiment, mesh))
    if state is None or state.history is not None:
        return state
    return state._replace(history=sharding.to_devices(first_history(experiment), sharding.replicated(mesh)))


def snapshot_period(experiment: Experiment) -> int:
    """The steps between two snapshots of the power-function averages, a multiple of those between checkpoints."""
    return snapshots.period(experiment.num_steps, experiment.every.save)


def _after_divergence(error: Diverged, good: int | None, folder: Path) -> str:
    kept = "no checkpoint was saved yet" if good is None else f"the last good checkpoint in {folder} is step {good}"
    return f"{error}: {kept}. A smaller --learning-rate may help; --on-nan skip leaves such updates out"


def placement(mesh: Mesh, state: TrainState) -> str:
    """One line of text on the devices, the mesh and the number of parameters of a run."""
    leaves = jax.tree.leaves(state.params)
    total, sharded = (sum(x.size for x in leaves if kind(x)) for kind in (lambda x: True, _is_sharded))
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    over_fsdp = f", {sharded:,} of them sharded over fsdp" if mesh.shape["fsdp"] > 1 else ""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    devices = f"{mesh.size} {jax.devices()[0].device_kind} device(s){processes}"
    return f"{devices}, mesh {axes}; {total:,} parameters{over_fsdp}"


def _is_sharded(x: jax.Array) -> bool:
    return not x.sharding.is_fully_replicated


def check(experiment: Experiment, execution: Execution | None = None, reporter: Reporter | None = None) -> None:
    """Raises ValueError or FileNotFoundError for a run that cannot be trained. Writes nothing.

    Checks the mesh, the batch, the network against the data, and the first training example. Reports what was found
    where the files of the data lie, and an average that would keep much of the initial parameters.
    """
    execution, reporter = execution or Execution(), reporter or Reporter()
    check_batch(experiment, make_mesh(execution.mesh), execution.accumulate)
    if execution.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {execution.workers}")
    span(execution.profile, experiment.num_steps)
    check_network(experiment)
    if experiment.data.listing is not None:
        reporter.line(experiment.data.listing(reporter.track).report)
    check_examples(experiment.data, "train")
    periodic.check(experiment, execution)
    if (kept := initial_share(experiment)) > 0.05:
        reporter.line(
            f"after {experiment.num_steps} steps with EMA decay {experiment.ema_decay}, {kept:.0%} of the average "
            "is the initial parameters: lower --ema-decay, train longer, or sample with --weights raw"
        )


def initial_share(experiment: Experiment) -> float:
    """The weight of the initial parameters in their moving average at the end of the run; 0 for a decay that rises."""
    return 0.0 if callable(experiment.ema_decay) else float(experiment.ema_decay) ** experiment.num_steps


def initial_state(experiment: Experiment, mesh: Mesh, start: Params | None = None) -> TrainState:
    """The state at step 0 with the parameters `start`, by default random ones, computed on the devices."""

    def make(params: Params | None) -> TrainState:
        params = init_fn(experiment)(root_key(experiment.seed, INIT)) if params is None else params
        return first_state(experiment, params)

    kept = sharding.shardings(abstract_state(experiment, mesh))
    given = jax.tree.map(np.asarray, start)  # on the host: they may lie on a single device
    return jax.jit(make, out_shardings=kept, compiler_options=_for_one_call())(given)


def _for_one_call() -> dict[str, int] | None:
    """Compiler options for a program that runs once: on a CPU, XLA's optimization takes longer than it saves."""
    return {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None


def report(experiment: Experiment, log: Log, reporter: Reporter, speed: Callable[[float], dict[str, float]]):
    """The action that writes the averages of the metrics to the log and reports them."""

    def do(step: int, state: TrainState, averages: dict[str, float]) -> None:
        rate = averages.pop("steps_per_second")
        metrics = averages | {"images_per_second": rate * experiment.batch_size} | speed(rate)
        log.scalars(step, metrics)
        reporter.trained(step, metrics)

    return do


def previews(experiment: Experiment, mesh: Mesh, log: Log, folder: Path) -> list[Action]:
    """The action that draws samples; none for a classifier, which has none."""
    return [] if experiment.is_classifier else [Action(experiment.every.sample, preview(experiment, mesh, log, folder))]


def preview(experiment: Experiment, mesh: Mesh, log: Log, folder: Path):
    """The action that draws samples with the averaged parameters, in few steps, from the same noise each time."""
    few, eta = min(PREVIEW_STEPS, experiment.process.schedule.num_steps), experiment.preview_eta
    draw = sample_fn(experiment, steps=None if eta is None else few, eta=eta)
    condition = labels(experiment, PREVIEW_IMAGES)

    spread = sharding.replicated(mesh) if PREVIEW_IMAGES % mesh.size else sharding.batch_sharding(mesh)

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def sample(params):
        image_keys = jax.lax.with_sharding_constraint(keys(experiment.seed, PREVIEW_IMAGES), spread)
        return draw(sharding.all_gathered(params, mesh), image_keys, condition)

    def do(step: int, state: TrainState, _: dict[str, Any]) -> None:
        picture = figures.picture(np.asarray(sample(state.averages[EMA])))
        if distributed.is_leader():
            folder.mkdir(exist_ok=True)
            figures.save_png(folder / f"step_{step:08d}.png", picture)
            log.picture(step, "samples", picture)

    return do
