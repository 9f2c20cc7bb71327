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
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`."""
COMPILED = "/jax/core/compile/backend_compile_duration"
"""JAX's event at the end of a compilation."""
RETURN_EVERY = 50
"""The number of train steps between two calls of `return_memory`."""


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
    the host waits for each step. `return_memory` is called after each compilation, which frees 0.5 GB for a U-Net;
    training calls it every `RETURN_EVERY` steps.
    """
    if _may_have_accelerator():
        return
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(M_MMAP_THRESHOLD, 2**31 - 1) or mallopt(M_MMAP_THRESHOLD, 2**25):  # older versions allow less
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
            jax.monitoring.register_event_duration_secs_listener(_after_event)


def _after_event(event: str, duration_secs: float, **_: str | int) -> None:
    if event == COMPILED:
        return_memory()


def return_memory() -> None:
    """Gives memory that is free, but kept in the process, back to the system.

    Does nothing where JAX may find an accelerator. glibc gives each thread an arena of its own, and blocks of some
    megabytes that one thread frees and another requests are not used again: without this call, the process grows by
    13 MB with each step of a swiss roll with 512 functions (JAX 0.12). With one arena for all threads it does not grow,
    but a train step of the digits takes a fifth longer.
    """
    if not _may_have_accelerator():
        with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
