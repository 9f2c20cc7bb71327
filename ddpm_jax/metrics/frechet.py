"""The Frechet distance between two sets of feature vectors."""

import numpy as np
from jaxtyping import Float


def frechet_distance(a: Float[np.ndarray, "m features"], b: Float[np.ndarray, "n features"]) -> float:
    """The squared 2-Wasserstein distance between Gaussians with the means and covariances of `a` and `b`.

        |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),    A, B: the covariances

    Heusel et al. 2017, Eq. 6: the FID, if the features are those of their Inception network. Computed in float64, and
    accurate for singular covariances too. Small samples bias it upwards. Each set needs at least two vectors.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    root = _root(cov_a)
    cross = np.trace(_root(root @ cov_b @ root))
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
