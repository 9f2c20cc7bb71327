"""The Inception Score (Salimans et al. 2016): how sure a classifier is, and how varied its answers."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from ddpm_jax.metrics.errors import check_blocks, jackknife_variance


class InceptionScore(NamedTuple):
    """The score by the customary protocol, and of all images together."""

    mean: float
    """The mean over the splits: the published number."""
    spread: float
    """The standard deviation over the splits (divisor: their number), which is published with it."""
    whole: float
    """The score of all images together; it is higher than the mean, because a split is a smaller sample."""
    error: float
    """The jackknife error of `whole`."""


def inception_score(
    logits: Shaped[np.ndarray, "count classes"], splits: int = 10, seed: int | None = 2020
) -> InceptionScore:
    """exp(E KL(p(y | x) || p(y))) of splits of the images, and of all of them, in float64.

    p(y | x) is the softmax of the logits and p(y) its mean over the images. The score is between 1 and the number of
    classes. In the published protocol the logits are the 1008 of `inception` **without the bias**, of 50,000 images.
    The splits are consecutive; the seed shuffles the images first as torch-fidelity does, None keeps their order as in
    the evaluator of Dhariwal & Nichol 2021. Raises ValueError for fewer than 2 splits, or fewer images than splits.
    """
    check_blocks(len(logits), splits)
    order = np.arange(len(logits)) if seed is None else np.random.RandomState(seed).permutation(len(logits))
    log_p = _log_softmax(np.asarray(logits, np.float64)[order])
    bounds = [k * len(log_p) // splits for k in range(splits + 1)]
    parts = list(itertools.pairwise(bounds))
    scores = np.array([_score(log_p[first:last]) for first, last in parts])
    without = np.array([_score(np.delete(log_p, slice(first, last), axis=0)) for first, last in parts])
    error = float(np.sqrt(jackknife_variance(without)))
    return InceptionScore(float(scores.mean()), float(scores.std()), _score(log_p), error)


def _score(log_p: Float[np.ndarray, "count classes"]) -> float:
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    # a class that no image has adds 0 log 0 = 0
    entropy = -np.sum(marginal * np.log(np.where(marginal > 0, marginal, 1)))
    return float(np.exp(entropy + np.sum(p * np.where(p > 0, log_p, 0), axis=1).mean()))


def _log_softmax(logits: Float[np.ndarray, "count classes"]) -> Float[np.ndarray, "count classes"]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
