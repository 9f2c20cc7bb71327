"""Writes a run's sampler, with its parameters, as one file that needs JAX only: export DIR FILE.stablehlo [--num N]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import ExportRequest

    request = parse(ExportRequest, args, "export")

    from ddpm_jax.runs.export import export_to_file

    print(export_to_file(request))
    return 0
