"""Estimates and their standard errors."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped


class Estimate(NamedTuple):
    """A number computed from samples, and its standard error."""

    value: float
    error: float


def jackknife(
    statistic: Callable[..., Float[np.ndarray, " numbers"]], *sets: Shaped[np.ndarray, "_ ..."], blocks: int = 10
) -> Float[np.ndarray, " numbers"]:
    """The standard error of each number of ``statistic(*sets)``, by leaving out one block of one set at a time.

        error^2 = sum over the sets of (blocks - 1) / blocks sum_b (s_b - mean s)^2

    where s_b is the statistic without block b (Quenouille 1956; Tukey 1958). The examples of a set must be in random
    order and independent. The error counts the draw of all the sets given; bind a set that is fixed in the function.
    The statistic is evaluated `blocks` times for each set. Raises ValueError if a set has fewer examples than blocks.
    """
    check_blocks(min(map(len, sets)), blocks)
    variance = 0.0
    for which, each in enumerate(sets):
        parts = np.array_split(np.arange(len(each)), blocks)
        rest = (np.delete(each, part, axis=0) for part in parts)
        values = np.stack([statistic(*sets[:which], some, *sets[which + 1 :]) for some in rest])
        variance = variance + jackknife_variance(values)
    return np.sqrt(variance)


def jackknife_variance(values: Float[np.ndarray, "blocks ..."]) -> Float[np.ndarray, "..."]:
    """The variance of a statistic from its values without each of the blocks."""
    return np.asarray((len(values) - 1) * np.square(values - values.mean(axis=0)).mean(axis=0))


def check_blocks(count: int, blocks: int) -> None:
    """Raises ValueError unless there are at least two blocks, and an example for each."""
    if not 2 <= blocks <= count:
        raise ValueError(f"an error needs 2 blocks or more, with an example for each: got {blocks=} of {count}")
