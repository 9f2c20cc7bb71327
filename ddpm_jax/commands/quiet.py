"""Settings of a process that runs one command: less noise on the screen, compiled programs kept for the next start."""

import logging
import os
import platform
import sys
import threading
import warnings

AFTERMATH = ("Event loop is closed", "handle is closed", "No space left on device")
"""Parts of the errors in background threads that follow a failed write; the failed write itself raises an error."""


def be_quiet() -> None:
    """Hides Orbax's log, Pillow's warnings, and what background threads print about a failed write.

    A failed write, or a picture that cannot be read, raises an error anyway.
    """
    warnings.filterwarnings("ignore", module="PIL")
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for module, name in ((sys, "unraisablehook"), (threading, "excepthook")):
        shown = getattr(module, name)
        setattr(module, name, lambda failure, shown=shown: _is_aftermath(failure.exc_value) or shown(failure))


def _is_aftermath(error: BaseException | None) -> bool:
    return any(text in str(error) for text in AFTERMATH)


def keep_programs() -> None:
    """Makes JAX keep compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR is set already."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    # a program for one CPU may use instructions that another machine with the same home lacks
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.expanduser(home), "ddpm_jax", platform.node())
    )
