"""The Frechet distance between sets of feature vectors, its error, and its limit for infinitely many samples."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from ddpm_jax.metrics.errors import Estimate, check_blocks, jackknife_variance
from ddpm_jax.metrics.moments import Moments, merge, moments

Features = Shaped[np.ndarray, "_ dims"]


def frechet_distance(a: Features | Moments, b: Features | Moments) -> float:
    """The squared 2-Wasserstein distance between Gaussians with the means and covariances of `a` and `b`.

        |mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2),    A, B: the covariances

    Heusel et al. 2017, Eq. 6: the FID if the features are the 2048 of `inception`, and the sFID (Nash et al. 2021;
    Dhariwal & Nichol 2021) if they are its 2023 spatial ones. `a` and `b` are feature vectors, at least two, or their
    moments. Computed in float64. The formula holds for singular covariances too. Small samples bias it upwards. Where
    one of two sets has fewer vectors than dimensions, no covariance is made: such sets may have very many dimensions.
    """
    if not isinstance(a, Moments) and not isinstance(b, Moments) and min(len(a), len(b)) < a.shape[1]:
        return _of_few(a, b)
    return _distance_from(_moments(b))(_moments(a))


def _of_few(a: Features, b: Features) -> float:
    """The distance by products of vectors: tr((A^1/2 B A^1/2)^1/2) is the sum of the singular values of X Y^T.

    A = X^T X and B = Y^T Y are the covariances.
    """
    (mean_a, x), (mean_b, y) = map(_centred, (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(np.square(mean_a - mean_b).sum() + np.square(x).sum() + np.square(y).sum() - 2 * cross)


def _centred(vectors: Features) -> tuple[np.ndarray, np.ndarray]:
    """(mean, X) with X^T X = the covariance of the vectors."""
    if not len(vectors):
        raise ValueError("the distance needs one feature vector or more, got none")
    x = np.asarray(vectors, np.float64)
    mean = x.mean(axis=0)
    return mean, (x - mean) / np.sqrt(max(len(x) - 1, 1))


def frechet(blocks: Sequence[Moments], reference: Moments) -> Estimate:
    """The Frechet distance of all the blocks together from the reference, with its jackknife error.

    The blocks, usually those of `block_moments`, must be of nearly equal size and of independent samples. The error is
    for the draw of the samples, with the reference fixed. It does not contain the bias of a small sample: see
    `frechet_at_infinity`. Raises ValueError for a single block.
    """
    check_blocks(len(blocks), len(blocks))
    distance = _distance_from(reference)
    without = [distance(merge(*others)) for others in _without_each(blocks, 1)]
    return Estimate(distance(merge(*blocks)), float(np.sqrt(jackknife_variance(np.array(without)))))


class Extrapolation(NamedTuple):
    """The Frechet distance for infinitely many samples, and the line that gives it."""

    value: float
    error: float
    """The standard error of the value, for the draw of the samples."""
    slope: float
    """The distance of n samples is about ``value + slope / n``."""
    counts: tuple[int, ...]
    """The numbers of samples whose distances the line is fitted to."""
    distances: tuple[float, ...]


def frechet_at_infinity(blocks: Sequence[Moments], reference: Moments, sizes: int = 10) -> Extrapolation:
    """The Frechet distance extrapolated to infinitely many samples (Chong & Forsyth 2020).

        distance(n) = value + slope / n

    is fitted by least squares to the distances of the first n samples, for `sizes` values of n from a tenth of the
    samples to all of them, in whole blocks (20 of `block_moments` are enough). The error is a jackknife over tenths of
    the blocks, so there are 11 fits. The reference stays as it is: its own bias remains.

    The bias is proportional to 1 / n only where n exceeds the number of features: the smallest n is at least twice
    that number. Raises ValueError for fewer than 10 blocks, or if the smallest n would be over half of the samples.
    """
    if len(blocks) < 10:
        raise ValueError(f"an extrapolation needs 10 blocks or more, got {len(blocks)}")
    total, dims = sum(block.count or 0 for block in blocks), len(blocks[0].mean)
    if 4 * dims > total:
        raise ValueError(f"{total} samples are too few for an extrapolation with {dims} features: have {4 * dims}")
    distance = _distance_from(reference)
    counts, distances = _of_growing(blocks, distance, sizes)
    slope, value = _line(counts, distances)
    fits = [_line(*_of_growing(some, distance, sizes))[1] for some in _without_each(blocks, len(blocks) // 10)]
    error = float(np.sqrt(jackknife_variance(np.array(fits))))
    return Extrapolation(value, error, slope, tuple(counts), tuple(distances))


def _of_growing(
    blocks: Sequence[Moments], distance: Callable[[Moments], float], sizes: int
) -> tuple[list[int], list[float]]:
    """The numbers of samples in the first blocks, and their distances."""
    merged = [blocks[0]]
    for block in blocks[1:]:
        merged.append(merge(merged[-1], block))
    total, dims = merged[-1].count or 0, len(merged[-1].mean)
    least = min(max(total / 10, 2 * dims), total / 2)
    first = next(k for k, some in enumerate(merged) if (some.count or 0) >= least)
    chosen = [merged[k] for k in np.unique(np.linspace(first, len(merged) - 1, sizes).round().astype(int))]
    return [some.count or 0 for some in chosen], [distance(some) for some in chosen]


def _line(counts: Sequence[int], distances: Sequence[float]) -> tuple[float, float]:
    """The slope and the value at 0 of the line through the distances over 1 / counts."""
    slope, value = np.polyfit(1 / np.array(counts), distances, 1)
    return float(slope), float(value)


def _without_each(blocks: Sequence[Moments], size: int) -> list[list[Moments]]:
    """The blocks without each group of `size` neighbours."""
    starts = range(0, size * (len(blocks) // size), size)
    return [[*blocks[:start], *blocks[start + size :]] for start in starts]


def _moments(features: Features | Moments) -> Moments:
    return features if isinstance(features, Moments) else moments(features)


def _distance_from(reference: Moments) -> Callable[[Moments], float]:
    """The distance from the reference, whose root is computed once."""
    root, variance = _root(reference.covariance), np.trace(reference.covariance)

    def distance(some: Moments) -> float:
        squares = np.linalg.eigvalsh(root @ some.covariance @ root)
        cross = np.sqrt(np.maximum(squares, 0)).sum()
        shift = np.square(some.mean - reference.mean).sum()
        return float(shift + np.trace(some.covariance) + variance - 2 * cross)

    return distance


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
