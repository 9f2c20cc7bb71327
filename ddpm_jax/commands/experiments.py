"""Lists the experiments that come with the library."""


def run(args: list[str], own_process: bool) -> int:
    """Runs the command; returns the exit status."""
    from dataclasses import dataclass

    from ddpm_jax.commands.parsing import parse

    @dataclass(frozen=True)
    class ExperimentsRequest:
        """Lists the experiments that come with the library."""

    parse(ExperimentsRequest, args, "experiments")

    from ddpm_jax.runs import experiment_files

    for name, path in experiment_files.shipped().items():
        print(f"{name:28} {experiment_files.headline(path)}")
    return 0
