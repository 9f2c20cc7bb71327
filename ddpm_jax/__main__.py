"""``python -m ddpm_jax`` is ``ddpm-jax``: the command line in a process of its own."""

import sys

from ddpm_jax.commands import main


def start() -> int:
    """Configures the process, runs the command that it was started with, and returns the exit status."""
    if sys.argv[1:2] not in ([], ["-h"], ["--help"], ["--version"]):
        from ddpm_jax.commands import quiet
        from ddpm_jax.system import cpu

        cpu.use_fast_libraries()
        quiet.be_quiet()
        quiet.keep_programs()
    return main(own_process=True)


if __name__ == "__main__":
    sys.exit(start())
