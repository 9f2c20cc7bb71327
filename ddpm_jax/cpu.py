"""Settings of a process that computes on a CPU, to be made before JAX is first used; no accelerator heeds them."""

import contextlib
import ctypes
import os
from importlib.metadata import version

CONVOLUTIONS = "--xla_cpu_experimental_ynn_fusion_type"
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def quicken() -> None:
    """Has XLA compute convolutions itself, unless ``XLA_FLAGS`` say what to do; without effect but with JAX 0.10.

    JAX 0.10 hands them to YNNPACK, which takes twice as long for up to 64 channels; from 0.11 on both are as quick.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib").startswith("0.10.") and CONVOLUTIONS not in flags:
        # sums stay with YNNPACK, which is the quicker there
        os.environ["XLA_FLAGS"] = f"{flags} {CONVOLUTIONS}=LIBRARY_FUSION_TYPE_REDUCE".strip()


def keep_memory() -> None:
    """Keeps the memory of one step for the next.

    By default the system takes it back after each step and hands it out again page by page, which is a tenth of the
    step. glibc keeps blocks of any size in the thread that asked for them alone, so steps have to run there.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for which in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            mallopt(which, 2**31 - 1)
