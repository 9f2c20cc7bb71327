"""Whether generated examples repeat training examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ddpm_jax.metrics.errors import Estimate

AT_ONCE = 1024
"""The number of vectors of each set whose distances are in memory together."""


class Authenticity(NamedTuple):
    """Generated examples compared with the training set, and with a test set's distances from it."""

    auth_pct: Estimate
    """The percentage of authentic examples: 0 if all are copies. An example is authentic if the training example
    nearest to it has another training example nearer still. The error is for the draw of the generated examples."""
    closer: Estimate
    """The probability that a generated example is nearer to the training set than a test example: 1/2 if it is drawn
    from the same distribution, 1 for copies."""
    generated: float
    """The mean distance of a generated example to its nearest training example."""
    test: float
    """The mean distance of a test example to its nearest training example."""
    nearest: Int[np.ndarray, " generated"]
    """The row of the nearest training example of each generated one, to show them side by side."""


def authenticity(
    features: Float[np.ndarray, "m dims"], training: Float[np.ndarray, "n dims"], test: Float[np.ndarray, "t dims"]
) -> Authenticity:
    """Compares generated examples with their nearest training examples, in feature space.

    The percentage is AuthPct of Alaa et al. 2022: 100 times the share of examples x for which d(x, y) > d(y, y'),
    where y is the training example nearest to x and y' the training example nearest to y. For fresh draws from the
    distribution of the training examples it is one minus the probability that neighbours are mutual: between 33 (one
    dimension) and 50 (many). The comparison with test examples is the Mann-Whitney statistic of the distances (Meehan
    et al. 2020), with the error of DeLong et al. 1988. `test` must be drawn as the training examples were, but not be
    among them. Raises ValueError for fewer than 2 examples in a set.
    """
    if min(len(features), len(training), len(test)) < 2:
        raise ValueError(f"authenticity needs 2 examples or more, got {len(features)}, {len(training)}, {len(test)}")
    distance, row = nearest_rows(features, training)
    own, _ = nearest_rows(training[row], training, leave_out=row)
    authentic = 100.0 * (distance > own)
    of_test, _ = nearest_rows(test, training)
    share = Estimate(float(authentic.mean()), _standard_error(authentic))
    return Authenticity(share, _lower(distance, of_test), float(distance.mean()), float(of_test.mean()), row)


def _lower(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " n"]) -> Estimate:
    """The probability that one of `a` is below one of `b`, ties counted half."""
    over, under = np.sort(b), np.sort(a)
    of_a = 1 - (np.searchsorted(over, a, "left") + np.searchsorted(over, a, "right")) / (2 * len(b))
    of_b = (np.searchsorted(under, b, "left") + np.searchsorted(under, b, "right")) / (2 * len(a))
    return Estimate(float(of_a.mean()), float(np.hypot(_standard_error(of_a), _standard_error(of_b))))


def _standard_error(values: Float[np.ndarray, " count"]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def nearest_rows(
    x: Float[np.ndarray, "m dims"], others: Float[np.ndarray, "n dims"], leave_out: Int[np.ndarray, " m"] | None = None
) -> tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """The Euclidean distance of each x to the nearest of the others, and the row of that one.

    Row ``leave_out[i]`` is not a neighbour of x_i. A matrix product in float32 finds the neighbour; its distance is
    computed from the difference, so a copy has distance 0 exactly.
    """
    centre = others.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    blocks = [(first, others[first : first + AT_ONCE] - centre) for first in range(0, len(others), AT_ONCE)]
    rows = np.full(len(x), -1) if leave_out is None else leave_out
    found = [
        _nearest_of(x[first : first + AT_ONCE] - centre, blocks, rows[first : first + AT_ONCE])
        for first in range(0, len(x), AT_ONCE)
    ]
    nearest = np.concatenate(found)
    difference = np.asarray(x, np.float64) - others[nearest]
    return np.sqrt(np.square(difference).sum(axis=1)), nearest


def _nearest_of(x: np.ndarray, blocks: list[tuple[int, np.ndarray]], leave_out: np.ndarray) -> Int[np.ndarray, " m"]:
    best, nearest = np.full(len(x), np.inf), np.zeros(len(x), int)
    for first, block in blocks:
        lowest, row = (np.asarray(part) for part in _closest(jnp.asarray(x), block, leave_out - first))
        nearest = np.where(lowest < best, row + first, nearest)
        best = np.minimum(lowest, best)
    return nearest


@jax.jit
def _closest(
    x: Float[Array, "m dims"], block: Float[Array, "n dims"], leave_out: Int[Array, " m"]
) -> tuple[Float[Array, " m"], Int[Array, " m"]]:
    dot = jnp.matmul(x, block.T, precision="highest")  # by default accelerators round the factors
    squared = jnp.square(x).sum(1)[:, None] + jnp.square(block).sum(1)[None] - 2 * dot
    squared = jnp.where(jnp.arange(len(block))[None] == leave_out[:, None], jnp.inf, squared)
    return squared.min(axis=1), squared.argmin(axis=1)
