"""Studies a run: study progressive|shared|interpolate|neighbours|chain|denoise|inpaint|sweep|bounds|reconstruct DIR"""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from ddpm_jax.commands.parsing import parse
    from ddpm_jax.studies.requests import StudyRequest

    request = parse(StudyRequest, args, "study")

    from ddpm_jax.studies.sheets import study_to_file

    print(study_to_file(request))
    return 0
