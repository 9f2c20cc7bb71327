"""Settings of a process that computes on a CPU, to be made before JAX is used."""

import contextlib
import ctypes
import os
import platform
import sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec

YNNPACK_SUMS_ONLY = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
"""Lets XLA use YNNPACK for reductions, where it is faster, but not for convolutions, where it takes twice as long."""
ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true"
"""Lets XLA use oneDNN for convolutions and matrix products, as PyTorch does. jaxlib has it from 0.11 on."""
FLAGS = {
    "0.10": (YNNPACK_SUMS_ONLY,),
    "0.11": (YNNPACK_SUMS_ONLY, ONEDNN),
    "0.12": (YNNPACK_SUMS_ONLY, ONEDNN),
}
"""The flags by version of jaxlib. XLA aborts the process at a flag that it does not know."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""


def use_fast_libraries() -> None:
    """Lets XLA compute convolutions with its fastest library, unless ``XLA_FLAGS`` has one of these flags already.

    Does nothing where JAX may find an accelerator, and for processors and versions of jaxlib that were not measured.
    Programs that use oneDNN cannot be kept in JAX's compilation cache, which is turned off with it.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    major, minor, *_ = version("jaxlib").split(".")
    measured = platform.machine() == "x86_64" and not _may_have_accelerator()
    ours = FLAGS.get(f"{major}.{minor}", ()) if measured else ()
    if not any(_name(flag) in flags for flag in ours):
        flags = os.environ["XLA_FLAGS"] = " ".join([flags, *ours]).strip()
    if _name(ONEDNN) in flags and f"{_name(ONEDNN)}=false" not in flags:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        if "jax" in sys.modules:  # which has read the variable already
            sys.modules["jax"].config.update("jax_enable_compilation_cache", False)


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def _may_have_accelerator() -> bool:
    """Whether JAX has a plugin for a device other than the CPU, and is not confined to the CPU."""
    installed = bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
    return installed and os.environ.get("JAX_PLATFORMS") != "cpu"


def keep_memory() -> None:
    """Keeps freed memory in the process for the next step. Does nothing where JAX may find an accelerator.

    By default the memory of a step is returned to the system and requested again page by page, which takes a tenth of
    the time of a step. glibc keeps large blocks for the main thread only, so JAX's asynchronous dispatch is turned off:
    the host waits for each step. All threads share one arena: with one for each, blocks of some megabytes that one
    thread frees and another requests were never used again (JAX 0.12: 8 MB more with each step of a swiss roll with 512
    functions).
    """
    if _may_have_accelerator():
        return
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(M_MMAP_THRESHOLD, 2**25):  # older versions allow less
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(M_ARENA_MAX, 1)
