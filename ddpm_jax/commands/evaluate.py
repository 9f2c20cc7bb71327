"""Measures a trained run, or images: evaluate DIR|FILE.npz [--metrics bpd nll fid kid ... --reference R --json FILE]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.evaluate_requests import EvaluateRequest

    request = parse(EvaluateRequest, args, "evaluate")

    from ddpm_jax.commands.processes import connect
    from ddpm_jax.runs.report import evaluate
    from ddpm_jax.training import distributed

    reporter = connect(request, own_process)
    if own_process:
        distributed.end_at_sigterm()
    evaluate(request, reporter)
    return 0
