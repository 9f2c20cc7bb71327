"""The times that a sampler visits."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int

Spacing = Callable[[np.ndarray], np.ndarray]
"""Maps n / count, where n of `count` steps lie between the data and t, to t / T: [0, 1] to [0, 1], non-decreasing."""


def even(fraction: np.ndarray) -> np.ndarray:
    """Times evenly spaced over 0..T, ``t = T fraction``."""
    return fraction


def quadratic(fraction: np.ndarray) -> np.ndarray:
    """Times dense near the data, ``t = T fraction^2`` (Song et al. 2021, Appendix D.2, for CIFAR-10)."""
    return fraction**2


SPACINGS: Mapping[str, Spacing] = {"even": even, "quadratic": quadratic}
"""The spacings by name."""


def times(num_steps: int, count: int, spacing: Spacing = even) -> Int[np.ndarray, " {count}+1"]:
    """``T = t_0 > t_1 > ... > t_count = 0``, the times that a sampler of `count` steps visits.

    `num_steps` is T. The times are rounded to integers, and moved where two would coincide. Raises ValueError unless
    1 <= count <= num_steps.
    """
    if not 1 <= count <= num_steps:
        raise ValueError(f"--steps must be between 1 and {num_steps}, got {count}")
    index = np.arange(count + 1)
    wanted = np.rint(num_steps * spacing(index / count)).astype(np.int32)
    # leaves room for the times below and above, so that no time occurs twice
    bounded = np.clip(wanted, index, num_steps - count + index)
    return (np.maximum.accumulate(bounded - index) + index)[::-1].astype(np.int32)
