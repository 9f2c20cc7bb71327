"""Converts a diffusers folder into a workdir, or a workdir into such a folder: convert SOURCE TARGET [--weights W]"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.runs.requests import ConvertRequest

    request = parse(ConvertRequest, args, "convert")

    from ddpm_jax.runs.convert import convert

    print(convert(request))
    return 0
