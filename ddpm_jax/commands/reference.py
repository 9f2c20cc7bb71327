"""Computes statistics of reference images, for evaluate: reference SOURCE FILE.npz [--split S --features NAME ...]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.evaluate_requests import ReferenceRequest

    request = parse(ReferenceRequest, args, "reference")

    from ddpm_jax.commands.processes import connect
    from ddpm_jax.runs.reference_file import reference_to_file
    from ddpm_jax.training import distributed

    reporter = connect(request, own_process)
    if own_process:
        distributed.end_at_sigterm()
    reporter.line(reference_to_file(request, reporter))
    return 0
