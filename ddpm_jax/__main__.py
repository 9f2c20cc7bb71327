"""The entry point of the command line: ``ddpm-jax`` and ``python -m ddpm_jax`` do the same."""

import sys

from ddpm_jax.commands import main


def start() -> int:
    """Configures the process, runs the command in ``sys.argv``, and returns the exit status."""
    if sys.argv[1:2] not in ([], ["-h"], ["--help"], ["--version"]):
        from ddpm_jax.commands import quiet
        from ddpm_jax.system import cpu

        cpu.use_fast_libraries()
        quiet.be_quiet()
        quiet.keep_programs()
    return main(own_process=True)


if __name__ == "__main__":
    sys.exit(start())
