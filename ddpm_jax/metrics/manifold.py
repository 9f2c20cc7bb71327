"""Precision, recall, density and coverage: how far two sets lie in balls around each other's vectors."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ddpm_jax.metrics.errors import Estimate, jackknife

AT_ONCE = 1024
"""The number of vectors of each set whose distances are in memory together."""


class Shares(NamedTuple):
    """How far generated and reference vectors share their support; errors are NaN if none were asked for."""

    precision: Estimate
    """The share of generated vectors inside a ball of the reference."""
    recall: Estimate
    """The share of reference vectors inside a ball of the generated set."""
    density: Estimate
    """The mean number of balls of the reference around a generated vector, divided by k; it can exceed 1."""
    coverage: Estimate
    """The share of balls of the reference that hold a generated vector."""


def shares(
    features: Float[np.ndarray, "m dims"],
    reference: Float[np.ndarray, "n dims"],
    k: int = 3,
    closed: bool = True,
    blocks: int = 0,
) -> Shares:
    """Improved precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

        ball(x_i) = {y: |y - x_i| <= r_i},    r_i: the distance of x_i to its k-th nearest other vector of its own set

    The ball has `<` if not `closed`. Precision and recall are customary with k = 3 and `<=`; density and coverage with
    k = 5 and `<`. All of them depend on m and n: compare values of the same numbers only. Distances are computed in
    float32 about the mean of the reference, `AT_ONCE` by `AT_ONCE`, so memory does not grow with m n.

    With ``blocks > 0``, the errors are a jackknife over that many blocks of both sets, whose vectors must be in random
    order: it repeats the work 2 `blocks` times. Raises ValueError for k < 1, or k + 1 vectors or fewer in a set.
    """
    check = min(len(features), len(reference)) * (1 - 1 / max(blocks, 1) if blocks else 1)
    if not 1 <= k < check - 1:
        raise ValueError(f"the sets must have over k + 1 = {k + 1} vectors, got {len(features)} and {len(reference)}")
    statistic = partial(_shares, k=k, closed=closed)
    values = statistic(features, reference)
    errors = jackknife(statistic, features, reference, blocks=blocks) if blocks else np.full(4, np.nan)
    return Shares(*(Estimate(float(value), float(error)) for value, error in zip(values, errors, strict=True)))


def _shares(features: np.ndarray, reference: np.ndarray, k: int, closed: bool) -> Float[np.ndarray, "4"]:
    # about one centre, since the difference of large squares would cancel
    centre = reference.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    generated, real = (_blocks(np.asarray(some, np.float32) - centre) for some in (features, reference))
    around, inside = _memberships(generated, real, _radii(real, k), closed)
    recalled, _ = _memberships(real, generated, _radii(generated, k), closed)
    return np.array([(around > 0).mean(), (recalled > 0).mean(), around.mean() / k, inside.mean()])


def _blocks(x: np.ndarray) -> list[Array]:
    return [jnp.asarray(x[first : first + AT_ONCE]) for first in range(0, len(x), AT_ONCE)]


def _radii(blocks: list[Array], k: int) -> list[Array]:
    """The squared distance of each vector to its k-th nearest other."""
    radii = []
    for which, rows in enumerate(blocks):
        lowest = jnp.full((len(rows), k), jnp.inf)
        for other, columns in enumerate(blocks):
            lowest = _lowest(lowest, rows, columns, other == which)
        radii.append(lowest[:, -1])
    return radii


@partial(jax.jit, static_argnums=3)
def _lowest(lowest: Float[Array, "m k"], rows: Array, columns: Array, same: bool) -> Float[Array, "m k"]:
    """The k lowest of each row, with those of a block; a vector is not its own neighbour."""
    squared = _squared(rows, columns)
    squared = jnp.where(jnp.eye(len(rows), dtype=bool), jnp.inf, squared) if same else squared
    return -jax.lax.top_k(-jnp.concatenate([lowest, squared], axis=1), lowest.shape[1])[0]


def _memberships(
    points: list[Array], centres: list[Array], radii: list[Array], closed: bool
) -> tuple[Int[np.ndarray, " points"], Bool[np.ndarray, " centres"]]:
    """The number of balls around each point, and whether each ball holds a point."""
    around, inside = [], [np.zeros(len(block), bool) for block in centres]
    for some in points:
        parts = [_inside(some, *ball, closed) for ball in zip(centres, radii, strict=True)]
        around.append(np.sum([part for part, _ in parts], axis=0))
        inside = [held | np.asarray(part) for held, (_, part) in zip(inside, parts, strict=True)]
    return np.concatenate(around), np.concatenate(inside)


@partial(jax.jit, static_argnums=3)
def _inside(
    points: Float[Array, "m dims"], centres: Float[Array, "n dims"], radii: Float[Array, " n"], closed: bool
) -> tuple[Int[Array, " m"], Bool[Array, " n"]]:
    squared = _squared(points, centres)
    within = squared <= radii[None] if closed else squared < radii[None]
    return within.sum(axis=1), within.any(axis=0)


def _squared(x: Float[Array, "m dims"], y: Float[Array, "n dims"]) -> Float[Array, "m n"]:
    """The squared distances of all pairs."""
    # by default accelerators round the factors of a product, which would move vectors in and out of balls
    dot = jnp.matmul(x, y.T, precision="highest")
    return jnp.square(x).sum(1)[:, None] + jnp.square(y).sum(1)[None] - 2 * dot
