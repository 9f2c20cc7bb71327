"""Draws images from a trained run: sample DIR [--num N --seed S --sampler NAME --steps K --eta E --out FILE ...]"""

from dataclasses import replace


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import SampleRequest

    request = parse(SampleRequest, args, "sample")

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.runs.reporter import Reporter
    from ddpm_jax.runs.sample import sample_to_file
    from ddpm_jax.training import distributed

    distributed.join(request.coordinator, request.num_processes, request.process_id, detect=own_process)
    distributed.check_same(repr(replace(request, process_id=None)))
    if own_process:
        distributed.end_at_sigterm()
    reporter = Screen() if distributed.is_leader() else Reporter()
    done = sample_to_file(request, reporter)
    reporter.line(done)
    return 0
