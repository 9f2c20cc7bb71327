"""The command line: finds the command, runs it, and turns its errors into one line and an exit status.

Exit status 0 if all is done; 2 for a mistake of the user, with one line on standard error; 130 after Ctrl-C and 143
where SIGTERM stopped training early; 1 for anything else: `verify` found a difference, training diverged, the memory or
the disk did not suffice. Each command is a module with a function ``run(args, own_process) -> int``. Modules import
what they need inside their functions, so that ``--help`` answers at once.
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
    "reference",
    "study",
    "edit",
    "tour",
    "plan",
    "verify",
    "convert",
    "export",
    "pack",
    "experiments",
    "prepare",
)
TRACEBACK = "DDPM_JAX_TRACEBACK"
"""The environment variable that, if it is set, shows errors with their traceback."""
OF_NAMES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""The errors of the system that a wrong name or path causes; the others are faults of a disk or a network."""
OUT_OF_MEMORY = (
    "out of memory: a smaller --batch-size needs less; in training also --accumulate 2, --mesh fsdp=N over N devices, "
    "or --dtype bfloat16 where the experiment has it. ddpm-jax plan EXPERIMENT computes the memory of training"
)


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
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        line, status = _explained(error)
        if line is None:
            raise
        print(f"ddpm-jax {name}: {line}", file=sys.stderr)
        return status


def _explained(error: Exception) -> tuple[str | None, int]:
    """One line for an error and the exit status; None for an error that only its traceback explains."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"{OUT_OF_MEMORY}  ({TRACEBACK}=1 shows the traceback)", 1
    if "No space left on device" in text:
        return "no space left on device: checkpoints saved before are kept. Free some, and repeat the command", 1
    if not isinstance(error, ValueError | OSError | ArithmeticError):
        return None, 1
    hint = "" if getattr(error, "is_usage", False) else f"  ({TRACEBACK}=1 shows the traceback)"
    return text + hint, 2 if isinstance(error, (ValueError, *OF_NAMES)) else 1


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
