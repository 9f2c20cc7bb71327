"""The kernel Inception distance (Binkowski et al. 2018): a maximum mean discrepancy with a cubic kernel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax.metrics.errors import Estimate, jackknife_variance

AT_ONCE = 1024
"""The number of vectors of each set whose kernels are in memory together."""


def kid(
    features: Float[np.ndarray, "m dims"], reference: Float[np.ndarray, "n dims"], at_once: int = AT_ONCE
) -> Estimate:
    """The squared maximum mean discrepancy between two sets, unbiased, from all pairs.

        mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean over i, j of k(x_i, y_j),
        k(x, y) = (x^T y / dims + 1)^3

    Its expectation is 0 for equal distributions, so it can be negative. The pairs are computed in blocks of
    `at_once` by `at_once`; kernels are in float32, sums over blocks in float64. The error is the jackknife over single
    vectors of both sets. Raises ValueError for fewer than 3 vectors in a set.
    """
    m, n = len(features), len(reference)
    if min(m, n) < 3:
        raise ValueError(f"KID needs at least 3 vectors in each set, got {m} and {n}")
    own, other = _own_sums(features, at_once), _own_sums(reference, at_once)
    rows, columns = _cross_sums(features, reference, at_once)
    total, within_x, within_y = rows.sum(), own.sum() / (m * (m - 1)), other.sum() / (n * (n - 1))
    without_x = (own.sum() - 2 * own) / ((m - 1) * (m - 2)) - 2 * (total - rows) / ((m - 1) * n)
    without_y = (other.sum() - 2 * other) / ((n - 1) * (n - 2)) - 2 * (total - columns) / (m * (n - 1))
    variance = jackknife_variance(without_x) + jackknife_variance(without_y)
    return Estimate(float(within_x + within_y - 2 * total / (m * n)), float(np.sqrt(variance)))


class KidSubsets(NamedTuple):
    """The distance by the customary protocol."""

    mean: float
    """The mean over the subsets."""
    spread: float
    """The standard deviation over the subsets: not a standard error, since subsets are smaller and overlap."""


def kid_subsets(
    features: Float[np.ndarray, "m dims"],
    reference: Float[np.ndarray, "n dims"],
    subsets: int = 100,
    size: int = 1000,
    seed: int = 2020,
) -> KidSubsets:
    """The mean distance over random subsets of both sets, as torch-fidelity draws them with the same seed.

    Raises ValueError if a set has fewer vectors than a subset.
    """
    if not 2 <= size <= min(len(features), len(reference)):
        raise ValueError(f"KID subsets of {size} need sets of that size, got {len(features)} and {len(reference)}")
    random = np.random.RandomState(seed)
    values = np.zeros(subsets)
    for k in range(subsets):
        x, y = (some[random.choice(len(some), size, replace=False)] for some in (features, reference))
        values[k] = _unbiased(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32))
    return KidSubsets(float(values.mean()), float(values.std()))


@jax.jit
def _unbiased(x: Float[Array, "size dims"], y: Float[Array, "size dims"]) -> Float[Array, ""]:
    size = len(x)
    within = (_kernel(x, x) + _kernel(y, y)) * (1 - jnp.eye(size))
    # per row first, where the three means nearly cancel
    rows = within.sum(axis=1) / (size - 1) - 2 * _kernel(x, y).sum(axis=1) / size
    return rows.mean()


def _own_sums(x: Float[np.ndarray, "m dims"], at_once: int) -> Float[np.ndarray, " m"]:
    """The sum over j != i of k(x_i, x_j), for each i."""
    own = np.concatenate([_own_kernel(block) for block in _blocks(x, at_once)])
    return _cross_sums(x, x, at_once)[0] - own


def _cross_sums(x: np.ndarray, y: np.ndarray, at_once: int) -> tuple[np.ndarray, np.ndarray]:
    """The sums of k(x_i, y_j) over j for each i, and over i for each j."""
    rows, columns = [], np.zeros(len(y))
    for block in _blocks(x, at_once):
        parts = [_sums(block, other) for other in _blocks(y, at_once)]
        rows.append(sum(np.asarray(part, np.float64) for part, _ in parts))
        columns += np.concatenate([np.asarray(part, np.float64) for _, part in parts])
    return np.concatenate(rows), columns


def _blocks(x: np.ndarray, at_once: int) -> list[Array]:
    return [jnp.asarray(x[first : first + at_once], jnp.float32) for first in range(0, len(x), at_once)]


@jax.jit
def _sums(x: Float[Array, "m dims"], y: Float[Array, "n dims"]) -> tuple[Float[Array, " m"], Float[Array, " n"]]:
    kernel = _kernel(x, y)
    return kernel.sum(axis=1), kernel.sum(axis=0)


def _kernel(x: Float[Array, "m dims"], y: Float[Array, "n dims"]) -> Float[Array, "m n"]:
    # by default accelerators round the factors of a product, which is more than the distance
    return (jnp.matmul(x, y.T, precision="highest") / x.shape[1] + 1) ** 3


@jax.jit
def _own_kernel(x: Float[Array, "m dims"]) -> Float[Array, " m"]:
    return (jnp.square(x).sum(axis=1) / x.shape[1] + 1) ** 3
