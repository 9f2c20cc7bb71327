"""Writes a run's parameters with their card as a small folder, which other commands read: pack DIR FOLDER"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import PackRequest

    request = parse(PackRequest, args, "pack")

    from ddpm_jax.commands.screen import Screen
    from ddpm_jax.runs.pack import pack

    print(pack(request, Screen()))
    return 0
