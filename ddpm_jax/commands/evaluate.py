"""Measures a trained run: evaluate DIR [--metrics bpd K importance entropy parzen memorisation --json FILE ...]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import EvaluateRequest

    request = parse(EvaluateRequest, args, "evaluate")

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.runs.report import evaluate

    evaluate(request, Screen())
    return 0
