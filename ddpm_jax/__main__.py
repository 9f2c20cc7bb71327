"""``python -m ddpm_jax`` is ``ddpm-jax``: the command line in a process of its own."""

import sys

from ddpm_jax import cpu
from ddpm_jax.cli import main


def start() -> int:
    """Runs the command that the process was started with; returns the exit status."""
    cpu.quicken()
    return main()


if __name__ == "__main__":
    sys.exit(start())
