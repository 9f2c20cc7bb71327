"""Trains an experiment, or resumes a run: train EXPERIMENT --workdir DIR [--from OTHER_RUN --knob value ...]"""

from contextlib import ExitStack
from pathlib import Path


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status: 0 finished, 143 stopped early by SIGTERM, 130 by Ctrl-C."""
    from ddpm_jax.commands.parsing import parse_with_experiment
    from ddpm_jax.runs.requests import TrainRequest

    parsed = parse_with_experiment(TrainRequest, args, "train", __doc__ or "", {"start_from": "from"})
    request: TrainRequest = parsed.request

    from ddpm_jax.commands.processes import connect
    from ddpm_jax.runs import experiment_files, resume
    from ddpm_jax.runs.train import check, train
    from ddpm_jax.system import cpu
    from ddpm_jax.training import StopRequest, distributed

    if own_process:
        cpu.keep_memory()
    reporter = connect(request, own_process, parsed.knobs)
    experiment = experiment_files.build(parsed.function, parsed.knobs)
    check(experiment, request, reporter)  # first, so that a run that cannot be trained leaves no workdir behind
    knobs, start = resume.settled(parsed.knobs, experiment), resume.start(request, experiment)
    with ExitStack() as stack:
        stack.enter_context(resume.opened(request, parsed.path, knobs, experiment, reporter))
        stop = stack.enter_context(StopRequest())
        step = int(train(experiment, request.workdir, stop, request, reporter, start).step)
    if stop.signal is not None and step < experiment.num_steps:
        print(f"stopped and saved at step {step} of {experiment.num_steps}: the same command resumes from there")
        return 128 + stop.signal
    if own_process:
        distributed.end_at_sigterm()  # from here on nothing has to be saved first
    _finish(request.workdir, step, reporter)
    return 0


def _finish(folder: Path, step: int, reporter) -> None:
    """Reports that the run is finished, and estimates its bits/dim."""
    from ddpm_jax.runs import quick

    samples = folder / "samples"
    where = f", samples in {samples}" if samples.exists() else ""
    reporter.line(f"finished: {step} steps{where}")
    try:
        quick.quick(folder, step, reporter)
    except Exception as error:  # whatever it is, such as too little memory or no test split: the run is finished
        reporter.line(f"bits/dim not measured: {' '.join(str(error).split())[:200] or type(error).__name__}")
