"""Trains an experiment, or resumes the run in its workdir: train EXPERIMENT --workdir DIR [--knob value ...]"""

import signal
from pathlib import Path


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse_with_experiment
    from ddpm_jax.runs.requests import TrainRequest

    parsed = parse_with_experiment(TrainRequest, args, "train", __doc__ or "")
    request: TrainRequest = parsed.request

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.runs import workdir
    from ddpm_jax.runs.reporter import Reporter
    from ddpm_jax.runs.train import check, train
    from ddpm_jax.system import cpu
    from ddpm_jax.training import StopRequest, distributed

    if own_process:
        cpu.keep_memory()
    distributed.join(request.coordinator, request.num_processes, request.process_id)
    knobs = workdir.own_knobs(request.workdir, parsed.path, parsed.knobs)
    experiment = parsed.function(**knobs)
    check(experiment, request)  # first, so that a run that cannot be trained leaves no workdir behind
    reporter = Screen() if distributed.is_leader() else Reporter()
    if distributed.is_leader():
        new = workdir.prepare(request.workdir, parsed.path, knobs)
        reporter.line(f"{'training' if new else 'resuming'} in {request.workdir}")
    distributed.wait("the workdir exists")
    with StopRequest() as stop:
        step = int(train(experiment, request.workdir, stop, request, reporter).step)
    if stop.signal is not None and step < experiment.num_steps:
        print(f"stopped and saved at step {step} of {experiment.num_steps}: the same command resumes from there")
        return 0 if stop.signal == signal.SIGTERM else 128 + stop.signal
    _finish(request.workdir, step, reporter)
    return 0


def _finish(folder: Path, step: int, reporter) -> None:
    """Reports that the run is finished and, if it has one process, estimates its bits/dim."""
    from ddpm_jax.runs import report
    from ddpm_jax.training import distributed

    alone, samples = distributed.is_alone(), folder / "samples"
    where = f", samples in {samples}" if samples.exists() else ""
    measure = "" if alone else f"; ddpm-jax evaluate {folder} measures it, on one machine"
    reporter.line(f"finished: {step} steps{where}{measure}")
    if alone:
        try:
            report.quick(folder, reporter)
        except (ValueError, FileNotFoundError) as error:  # such as data without a test split: the run is finished
            reporter.line(f"bits/dim not measured: {error}")
