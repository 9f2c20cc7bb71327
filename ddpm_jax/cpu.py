"""Settings of a process that computes on a CPU, to be made before JAX is first used."""

import contextlib
import ctypes
import os
from importlib.metadata import version

SUMS_ALONE = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
"""What XLA leaves to YNNPACK, the quicker one there; of convolutions up to half as quick as others."""
ONEDNN = "--xla_cpu_experimental_onednn_custom_call=true"
"""Convolutions and matrix products by oneDNN, which jaxlib has inside from 0.11 on and PyTorch uses too."""
FLAGS = {"0.10": (SUMS_ALONE,), "0.11": (SUMS_ALONE, ONEDNN), "0.12": (SUMS_ALONE, ONEDNN)}
"""By version of jaxlib: XLA ends the process at a flag that it does not know."""
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`."""


def quicken() -> None:
    """Has XLA compute convolutions by the quickest of its libraries, unless ``XLA_FLAGS`` name one of them.

    Without effect on an accelerator, and with versions of JAX that this was not measured with.
    """
    told = os.environ.get("XLA_FLAGS", "")
    major, minor, *_ = version("jaxlib").split(".")
    flags = FLAGS.get(f"{major}.{minor}", ())
    if not any(flag.partition("=")[0] in told for flag in flags):
        os.environ["XLA_FLAGS"] = " ".join([told, *flags]).strip()


def keep_memory() -> None:
    """Keeps the host's memory of one step for the next.

    By default the system takes it back after each step and hands it out again page by page, which is a tenth of the
    step. glibc keeps blocks of any size in the thread that asked for them alone, so steps have to run there.
    """
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for which in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            mallopt(which, 2**31 - 1)
