"""Draws images from a trained run: sample DIR [--num N --seed S --sampler NAME --steps K --eta E --out FILE ...]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import SampleRequest

    request = parse(SampleRequest, args, "sample")

    from ddpm_jax.commands.processes import connect
    from ddpm_jax.runs.sample import sample_to_file
    from ddpm_jax.training import distributed

    reporter = connect(request, own_process)
    if own_process:
        distributed.end_at_sigterm()
    reporter.line(sample_to_file(request, reporter))
    return 0
