"""The command line: finds the command, runs it, and turns its errors into one line and an exit status.

Exit status 0; 1 if `verify` finds a difference; 2 for a mistake of the user, with one line on standard error; 130 after
Ctrl-C. Each command is a module with a function ``run(args, own_process) -> int``. Modules import what they need inside
their functions, so that ``--help`` answers at once.
"""

import difflib
import importlib
import os
import signal
import sys

COMMANDS = (
    "train",
    "sample",
    "evaluate",
    "study",
    "tour",
    "plan",
    "verify",
    "convert",
    "experiments",
    "prepare",
)
TRACEBACK = "DDPM_JAX_TRACEBACK"
"""The environment variable that, if it is set, shows errors with their traceback."""


def main(argv: list[str] | None = None, own_process: bool = False) -> int:
    """Runs one command and returns the exit status.

    With `own_process` a command may configure JAX and the C library for the whole process; otherwise nothing global is
    changed.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        return _dispatch(name, [_expanded(arg) for arg in rest], own_process)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        if os.environ.get(TRACEBACK):
            raise
        print(f"ddpm-jax {name}: {_one_line(error)}", file=sys.stderr)
        return 2


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    if "No space left on device" in line:
        line = "no space left on device: checkpoints saved before are kept. Free some, and repeat the command"
    return line if getattr(error, "is_usage", False) else f"{line}  ({TRACEBACK}=1 shows the traceback)"


def _dispatch(name: str, args: list[str], own_process: bool) -> int:
    if name in ("-h", "--help"):
        return _help()
    if name == "--version":
        from ddpm_jax import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(COMMANDS)}"
        print(f"ddpm-jax: there is no command {name!r}: {hint}", file=sys.stderr)
        return 2
    return _module(name).run(args, own_process)


def _module(name: str):
    return importlib.import_module(f"ddpm_jax.commands.{name}")


def _expanded(arg: str) -> str:
    """The argument with ~ replaced by the home folder, also after the = of an option, where shells leave it."""
    option, equals, value = arg.partition("=") if arg.startswith("--") else ("", "", arg)
    return option + equals + os.path.expanduser(value)


def _help() -> int:
    print("usage: ddpm-jax COMMAND ...\n")
    for name in COMMANDS:
        print(f"  {name:12} {(_module(name).__doc__ or '').splitlines()[0]}")
    print("\nddpm-jax COMMAND --help shows the options of a command.")
    return 0
