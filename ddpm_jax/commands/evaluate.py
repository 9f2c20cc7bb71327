"""Measures a trained run: evaluate DIR [--metrics bpd K importance entropy parzen memorisation --json FILE ...]"""

from dataclasses import replace


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import EvaluateRequest

    request = parse(EvaluateRequest, args, "evaluate")

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.runs.report import evaluate
    from ddpm_jax.runs.reporter import Reporter
    from ddpm_jax.training import distributed

    distributed.join(request.coordinator, request.num_processes, request.process_id, detect=own_process)
    distributed.check_same(repr(replace(request, process_id=None)))
    if own_process:
        distributed.end_at_sigterm()
    reporter = Screen() if distributed.is_leader() else Reporter()
    evaluate(request, reporter)
    return 0
