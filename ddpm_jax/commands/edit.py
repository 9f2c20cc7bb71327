"""Edits images with a trained run: edit inpaint|super-resolve|deblur|colorize|sdedit|interpolate DIR --image FILE"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.studies.requests import EditRequest

    request = parse(EditRequest, args, "edit")

    from ddpm_jax.studies.edits import edit_to_file

    print(edit_to_file(request))
    return 0
