"""Accelerators and their peak rates, from the makers' data sheets: for `plan`, and for the utilisation in the log."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike


class Accelerator(NamedTuple):
    """One device as JAX counts them: a chip whose two cores act as one is one device."""

    name: str
    kinds: tuple[str, ...]
    """The values of ``jax.Device.device_kind``, without "NVIDIA". Other variants and parts (MIG) have other numbers."""
    memory: float
    """Memory in GB (10^9 bytes)."""
    bfloat16: float
    """Peak TFLOP/s of dense bfloat16 matrix products."""
    float32: float
    """Peak TFLOP/s of float32 products as JAX computes them by default: one bfloat16 pass on TPU, TF32 on GPU."""
    link: float
    """GB/s from one device to the others of its slice or machine."""
    bandwidth: float
    """GB/s between a device and its memory."""
    dimensions: int | None
    """The number of dimensions in which the chips of a slice of TPUs are connected; None for a GPU."""

    def peak(self, dtype: DTypeLike) -> float:
        """Peak TFLOP/s of matrix products: `bfloat16` for that dtype, `float32` for any other."""
        return float(self.bfloat16 if jnp.dtype(dtype) == jnp.bfloat16 else self.float32)


ACCELERATORS = (
    Accelerator("v4", ("TPU v4",), 32, 275, 275, 300, 1228, 3),
    Accelerator("v5e", ("TPU v5 lite", "TPU v5e"), 16, 197, 197, 200, 819, 2),
    Accelerator("v5p", ("TPU v5p", "TPU v5"), 95, 459, 459, 600, 2765, 3),
    Accelerator("v6e", ("TPU v6 lite", "TPU v6e"), 32, 918, 918, 448, 1640, 2),
    Accelerator("A100", ("A100-SXM4-80GB", "A100 80GB PCIe"), 80, 312, 156, 300, 2039, None),
    Accelerator("A100-40GB", ("A100-SXM4-40GB", "A100-PCIE-40GB"), 40, 312, 156, 300, 1555, None),
    Accelerator("H100", ("H100 80GB HBM3",), 80, 989, 495, 450, 3352, None),
    Accelerator("H200", ("H200",), 141, 989, 495, 450, 4800, None),
    Accelerator("B200", ("B200",), 180, 2250, 1125, 900, 7672, None),
)


def named(name: str) -> Accelerator:
    """The accelerator of this name, in upper or lower case. Raises ValueError, which lists the names, for any other."""
    for each in ACCELERATORS:
        if each.name.lower() == name.lower():
            return each
    raise ValueError(f"--accelerator {name}: choose one of {', '.join(each.name for each in ACCELERATORS)}")


def of_kind(kind: str) -> Accelerator | None:
    """The accelerator with this ``jax.Device.device_kind``; None for a device that is not listed, such as a CPU."""
    short = kind.removeprefix("NVIDIA ")
    return next((each for each in ACCELERATORS if short in each.kinds), None)
