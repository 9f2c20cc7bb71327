"""The metrics of features of samples: their numbers in words, with what they depend on, and as records."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from ddpm_jax import metrics
from ddpm_jax.metrics import Estimate, Moments, Statistics

ENOUGH = 10_000
"""The number of images below which the bias of a Frechet distance or an Inception Score is reported."""
BLOCKS = 10
"""The number of blocks of the jackknife of precision, recall, density and coverage."""
Vectors = Mapping[str, np.ndarray]
"""The features of images by name: "vectors", and of the Inception network "logits" and, if needed, "spatial"."""


class Sets(NamedTuple):
    """The features of samples and of what they are compared with."""

    samples: Vectors
    reference: Vectors | None
    """The features of reference images; None where only their statistics are needed, or nothing is compared."""
    test: np.ndarray | None
    """The feature vectors of test images, where the reference images are those of the training split."""
    statistics: Statistics | None
    """The moments of reference features from a file."""
    compared: str
    """What the samples are compared with, such as "360 test images"; "" if with nothing."""
    protocol: dict[str, Any]
    """What the numbers depend on apart from the run and the way to draw from it. Numbers whose protocols differ are not
    comparable."""
    drawn: dict[str, Any]
    """How the samples were drawn, or what is known about samples from elsewhere."""


class Measured(NamedTuple):
    """A metric of `Sets`."""

    text: str
    """The numbers with their errors, and their bias."""
    record: dict[str, Any]


def fid(sets: Sets) -> Measured:
    """The Frechet distance; with few samples also that of infinitely many, if their number exceeds the features'."""
    return _frechet(sets, "fid", "vectors", sets.statistics and sets.statistics.pool)


def sfid(sets: Sets) -> Measured:
    """The Frechet distance of spatial features (Nash et al. 2021), as Dhariwal & Nichol 2021 compute it."""
    return _frechet(sets, "sfid", "spatial", sets.statistics and sets.statistics.spatial)


def _frechet(sets: Sets, name: str, features: str, known: Moments | None) -> Measured:
    samples = sets.samples[features]
    blocks, reference = metrics.block_moments(samples), known or metrics.moments(_reference(sets)[features])
    estimate = metrics.frechet(blocks, reference)
    few = [f"{len(samples):,} samples"] if len(samples) < ENOUGH else []
    few += [sets.compared] if reference.count is not None and reference.count < ENOUGH else []
    text, record = _figure(estimate), {name: list(estimate)}
    if few:
        text += f"; biased upwards, since there are only {' and '.join(few)}"
    if ENOUGH > len(samples) >= 4 * samples.shape[1]:
        limit = metrics.frechet_at_infinity(blocks, reference)
        text += f"; of infinitely many samples {_figure(limit)}"
        record |= {f"{name}_at_infinity": [limit.value, limit.error]}
    return Measured(text, record)


def kid(sets: Sets) -> Measured:
    """The kernel distance from all pairs, which is unbiased."""
    estimate = metrics.kid(sets.samples["vectors"], _reference(sets)["vectors"])
    return Measured(f"{_figure(estimate, 6)}, unbiased", {"kid": list(estimate)})


def pr(sets: Sets) -> Measured:
    """Improved precision and recall, with k = 3."""
    return _shares(sets, ("precision", "recall"), k=3, closed=True)


def prdc(sets: Sets) -> Measured:
    """Precision, recall, density and coverage with k = 5 and open balls, as Naeem et al. 2020 compute them."""
    return _shares(sets, ("precision", "recall", "density", "coverage"), k=5, closed=False)


def _shares(sets: Sets, names: tuple[str, ...], k: int, closed: bool) -> Measured:
    random = np.random.default_rng(0)  # the blocks of the jackknife must be in random order
    samples, reference = (random.permutation(some["vectors"]) for some in (sets.samples, _reference(sets)))
    found = metrics.shares(samples, reference, k=k, closed=closed, blocks=BLOCKS)._asdict()
    numbers = ", ".join(f"{name} {_figure(found[name])}" for name in names)
    text = f"{numbers}, k = {k}; they depend on both numbers"
    return Measured(text, {name: list(found[name]) for name in names} | {"k": k})


def inception_score(sets: Sets) -> Measured:
    """The Inception Score of ten splits, and of all samples."""
    if "logits" not in sets.samples:
        raise ValueError("the Inception Score needs the logits of a classifier")
    score = metrics.inception_score(sets.samples["logits"])
    whole = Estimate(score.whole, score.error)
    text = f"{score.mean:.4f}, standard deviation {score.spread:.4f} over 10 splits; of all samples {_figure(whole)}"
    count = len(sets.samples["logits"])
    if count < ENOUGH:
        text += f"; biased downwards, since there are only {count:,} samples"
    return Measured(text, {"of_splits": [score.mean, score.spread], "of_all": list(whole)})


def authenticity(sets: Sets) -> Measured:
    """AuthPct (Alaa et al. 2022), and whether samples are nearer to training images than test images are."""
    if sets.test is None:
        raise ValueError("authenticity compares with test images")
    found = metrics.authenticity(sets.samples["vectors"], _reference(sets)["vectors"], sets.test)
    text = (
        f"{_figure(found.auth_pct, 2)} % of the samples; a sample is nearer to the training images than a test image "
        f"is with probability {_figure(found.closer)} (1/2 for fresh images, 1 for copies)"
    )
    record = {"auth_pct": list(found.auth_pct), "closer": list(found.closer)}
    return Measured(text, record | {"samples": found.generated, "test": found.test})


def _reference(sets: Sets) -> Vectors:
    if sets.reference is None:
        raise ValueError("this metric compares with reference images")
    return sets.reference


def _figure(estimate: Any, digits: int = 4) -> str:
    return f"{estimate.value:z.{digits}f} +- {estimate.error:.{digits}f}"


Needs = Literal["moments", "images", "splits", "nothing"]
"""What samples are compared with: moments of features or images, images, the training and test split, or nothing."""


class Metric(NamedTuple):
    """A metric of features."""

    title: str
    """Its name in reports."""
    measure: Callable[[Sets], Measured]
    needs: Needs


METRICS: Mapping[str, Metric] = {
    "fid": Metric("FID", fid, "moments"),
    "sfid": Metric("sFID", sfid, "moments"),
    "kid": Metric("KID", kid, "images"),
    "pr": Metric("Precision and recall", pr, "images"),
    "prdc": Metric("Precision, recall, density and coverage", prdc, "images"),
    "is": Metric("Inception Score", inception_score, "nothing"),
    "authenticity": Metric("AuthPct", authenticity, "splits"),
}


def heading(name: str, sets: Sets) -> str:
    """The title of a metric with the protocol of its numbers."""
    parts = [f"features {sets.protocol['features']}", f"{sets.protocol['samples']:,} samples"]
    parts += [sets.compared] if sets.compared else []
    return f"{_title(name, sets.protocol['features'])} ({', '.join([*parts, *unusual(sets.drawn)])})"


def _title(name: str, features: str) -> str:
    """The title of a metric: FID and Inception Score are those of the Inception network alone."""
    if features.startswith("inception"):
        return METRICS[name].title
    return {"fid": "Frechet distance", "is": "Score of the classes"}.get(name, METRICS[name].title)


def unusual(drawn: Mapping[str, Any]) -> list[str]:
    """How samples were drawn, in words, as far as it is not the usual."""
    usual = {"spacing": "even", "weights": "ema", "seed": 0, "clip": True}
    return [f"{name} {value}" for name, value in drawn.items() if value is not None and usual.get(name) != value]
