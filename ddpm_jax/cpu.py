"""Settings of a process that computes on a CPU, to be made before JAX is first used."""

import contextlib
import ctypes
import os
import platform
import sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec

SUMS_ALONE = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
"""What XLA leaves to YNNPACK: the quicker one there, and of convolutions in JAX 0.10 half as quick as XLA itself."""
ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true"
"""Convolutions and matrix products by oneDNN, which PyTorch uses too, and jaxlib can from 0.11 on."""
FLAGS = {"0.10": (SUMS_ALONE,), "0.11": (SUMS_ALONE, ONEDNN), "0.12": (SUMS_ALONE, ONEDNN)}
"""By version of jaxlib: XLA ends the process at a flag that it does not know."""
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def quicken() -> None:
    """Has XLA compute convolutions by the quickest of its libraries, unless ``XLA_FLAGS`` name one of them.

    Without effect where JAX may find an accelerator, and with processors and versions of JAX that this was not measured
    with. Programs that call oneDNN are not kept for the next start: XLA cannot write them down.
    """
    told = os.environ.get("XLA_FLAGS", "")
    major, minor, *_ = version("jaxlib").split(".")
    measured = platform.machine() == "x86_64" and not _may_be_elsewhere()
    flags = FLAGS.get(f"{major}.{minor}", ()) if measured else ()
    if not any(_name(flag) in told for flag in flags):
        told = os.environ["XLA_FLAGS"] = " ".join([told, *flags]).strip()
    if _name(ONEDNN) in told and f"{_name(ONEDNN)}=false" not in told:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        if "jax" in sys.modules:  # which has read that already
            sys.modules["jax"].config.update("jax_enable_compilation_cache", False)


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def _may_be_elsewhere() -> bool:
    """Whether JAX has what it needs for another device than the CPU, and was not told to stay there."""
    installed = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return installed and os.environ.get("JAX_PLATFORMS") != "cpu"


def keep_memory() -> None:
    """Keeps the memory of one step for the next; without effect where JAX may find an accelerator.

    By default the system takes it back after each step and hands it out again page by page, which is a tenth of the
    step. glibc keeps blocks of any size for the main thread alone, so steps have to run there: the host waits for each.
    """
    if _may_be_elsewhere():
        return
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(MMAP_THRESHOLD, 2**31 - 1) or mallopt(MMAP_THRESHOLD, 2**25):  # as far as older ones go
            mallopt(TRIM_THRESHOLD, 2**31 - 1)
