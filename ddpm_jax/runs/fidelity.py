"""Quality of samples by features: Frechet and kernel distance, precision and recall, Inception Score.

A number is reported and recorded with the protocol that it depends on.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import metrics
from ddpm_jax.experiment import labels
from ddpm_jax.metrics import Estimate
from ddpm_jax.runs import models, sample
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.chunks import Work, kept
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import check_images, features_of, of_data, of_samples, weights_of
from ddpm_jax.runs.records import differences, read_records
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.steps import model
from ddpm_jax.sampling import Run

LEAST, ENOUGH = 40, 10_000
"""The least number of samples and of reference images, so that each block of a jackknife has two; and the number below
which the bias of a Frechet distance or an Inception Score is reported."""
AT_ONCE = 64
"""The number of reference images whose features a device computes together."""


class Sets(NamedTuple):
    """The features of samples and of reference images."""

    samples: np.ndarray
    reference: np.ndarray | None
    """None for the Inception Score."""
    logits: np.ndarray | None
    """The logits of the samples; None for features without a classifier."""
    split: str
    protocol: dict[str, Any]
    """What the numbers depend on apart from the run and the way to draw from it. Numbers whose protocols differ are not
    comparable."""
    drawn: dict[str, Any]
    """How the samples were drawn."""


class Measured(NamedTuple):
    """A metric of `Sets`."""

    text: str
    """The numbers with their errors, and their bias."""
    record: dict[str, Any]


def check(run: Run, request: EvaluateRequest) -> None:
    """Raises ValueError, before anything is drawn, if the metrics of this module cannot be computed as requested."""
    names, data = [name for name in request.metrics or () if name in METRICS], run.experiment.data
    if not names:
        return
    check_images(names[0], data.image_shape)
    if data.levels is None:
        raise ValueError(f"--metrics {names[0]} is for images of bytes, not of floats: choose another metric")
    if "is" in names and (request.features == "pixels" or Path(request.features).suffix == ".py"):
        what = f"needs the classes of the Inception network: leave out --features {request.features}"
        raise ValueError(f"--metrics is {what}, or give the workdir of a classifier")
    _check_numbers(names, request, _num_reference(run, request))
    sample.check(request.drawing())
    sample.check_run(run, request.drawing())
    weights_of(request, data.image_shape)


def _check_numbers(names: list[str], request: EvaluateRequest, num_reference: int) -> None:
    if request.samples < LEAST:
        raise ValueError(f"--samples must be at least {LEAST} for --metrics {names[0]}, got {request.samples}")
    if num_reference < LEAST and names != ["is"]:
        found = f"the {request.split} split has {num_reference}" if request.num is None else f"got --num {request.num}"
        raise ValueError(f"--metrics {names[0]} needs at least {LEAST} images to compare with, {found}")


def _num_reference(run: Run, request: EvaluateRequest) -> int:
    length = len(run.experiment.data.open(request.split))
    return length if request.num is None else min(request.num, length)


def _sets(name: str, run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> Sets:
    """The features of samples and of the split, which are kept in the folder `keep`, and resumed from there."""
    data, asked = run.experiment.data, request.drawing()
    features, chosen = features_of(request, data.image_shape), model(run, asked, reporter)
    draws = sample.draws(run, asked, labels(run.experiment, asked.num), chosen=chosen)
    samples = _all(of_samples(features, draws), chosen.folder(keep / "features_of_samples"), reporter)
    protocol, reference = {"samples": asked.num, **features.protocol, "data": data.name}, None
    if name != "is":
        num = _num_reference(run, request)
        work = of_data(features, data, request.split, num, request.batch_size or AT_ONCE)
        reference = _all(work, keep / "features_of_data", reporter)["vectors"]
        digest = data_identity(data, request.split)["digest"]
        protocol |= {"split": request.split, "reference": num, "data_digest": digest[:16]}
    drawn = {
        "sampler": sample.sampler_name(asked, run),
        "steps": asked.steps or run.experiment.process.schedule.num_steps,
    }
    drawn |= {each: getattr(asked, each) for each in ("spacing", "eta", "variance", "guidance", "weights", "seed")}
    drawn |= {"clip": request.clip} | chosen.record()
    return Sets(samples["vectors"], reference, samples.get("logits"), request.split, protocol, drawn)


def _all(work: Work, keep: Path, reporter: Reporter) -> dict[str, np.ndarray]:
    found = list(kept(work, keep, reporter))
    return {name: np.concatenate([result[name] for result in found]) for name in found[0]}


def fid(sets: Sets) -> Measured:
    """The Frechet distance; with few samples also that of infinitely many, if their number exceeds the features'."""
    blocks, reference = metrics.block_moments(sets.samples), metrics.moments(_reference(sets))
    estimate = metrics.frechet(blocks, reference)
    few = [
        f"{len(vectors):,} {name}"
        for name, vectors in (("samples", sets.samples), (f"{sets.split} images", _reference(sets)))
        if len(vectors) < ENOUGH
    ]
    text, record = _figure(estimate), {"fid": list(estimate)}
    if few:
        text += f"; biased upwards, since there are only {' and '.join(few)}"
    if ENOUGH > len(sets.samples) >= 4 * sets.samples.shape[1]:
        limit = metrics.frechet_at_infinity(blocks, reference)
        text += f"; of infinitely many samples {_figure(limit)}"
        record |= {"fid_at_infinity": [limit.value, limit.error]}
    return Measured(text, record)


def kid(sets: Sets) -> Measured:
    """The kernel distance from all pairs, which is unbiased."""
    estimate = metrics.kid(sets.samples, _reference(sets))
    return Measured(f"{_figure(estimate, 6)}, unbiased", {"kid": list(estimate)})


def pr(sets: Sets) -> Measured:
    """Improved precision and recall, with k = 3."""
    random = np.random.default_rng(0)  # the blocks of the jackknife must be in random order
    samples, reference = (random.permutation(vectors) for vectors in (sets.samples, _reference(sets)))
    found = metrics.shares(samples, reference, k=3, blocks=10)
    text = f"precision {_figure(found.precision)}, recall {_figure(found.recall)}, k = 3; they depend on both numbers"
    return Measured(text, {"precision": list(found.precision), "recall": list(found.recall), "k": 3})


def inception_score(sets: Sets) -> Measured:
    """The Inception Score of ten splits, and of all samples."""
    if sets.logits is None:
        raise ValueError("the Inception Score needs the logits of a classifier")
    score = metrics.inception_score(sets.logits)
    whole = Estimate(score.whole, score.error)
    text = f"{score.mean:.4f}, standard deviation {score.spread:.4f} over 10 splits; of all samples {_figure(whole)}"
    if len(sets.samples) < ENOUGH:
        text += f"; biased downwards, since there are only {len(sets.samples):,} samples"
    return Measured(text, {"of_splits": [score.mean, score.spread], "of_all": list(whole)})


def _reference(sets: Sets) -> np.ndarray:
    if sets.reference is None:
        raise ValueError("this metric compares with reference images")
    return sets.reference


def _figure(estimate: Any, digits: int = 4) -> str:
    return f"{estimate.value:.{digits}f} +- {estimate.error:.{digits}f}"


METRICS: Mapping[str, tuple[str, Callable[[Sets], Measured]]] = {
    "fid": ("FID", fid),
    "kid": ("KID", kid),
    "pr": ("Precision and recall", pr),
    "is": ("Inception Score", inception_score),
}
"""The title of a metric in reports, and its function."""


def _estimate(name: str) -> Callable[[Run, EvaluateRequest, Path, Reporter], dict[str, Any]]:
    """The function that measures a run by this metric: it reports the result and returns its record."""

    def measure(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
        sets = _sets(name, run, request, keep, reporter)
        measured = METRICS[name][1](sets)
        reporter.line(f"{_heading(name, sets)}: {measured.text}")
        protocol = json.loads(json.dumps({"protocol": sets.protocol, "drawn": sets.drawn}))
        record = measured.record | protocol
        for line in _earlier(name, run.step, record, read_records(models.home(request.workdir) / "evaluation.json")):
            reporter.line(line)
        return record

    return measure


def _heading(name: str, sets: Sets) -> str:
    parts = [f"features {sets.protocol['features']}", f"{len(sets.samples):,} samples"]
    parts += [] if sets.reference is None else [f"{len(sets.reference):,} {sets.split} images"]
    usual = {"spacing": "even", "weights": "ema", "seed": 0, "clip": True}
    parts += [f"{each} {value}" for each, value in sets.drawn.items() if value is not None and usual.get(each) != value]
    return f"{_title(name, sets.protocol['features'])} ({', '.join(parts)})"


def _title(name: str, features: str) -> str:
    """The title of a metric: FID and Inception Score are those of the Inception network alone."""
    if features.startswith("inception"):
        return METRICS[name][0]
    return {"fid": "Frechet distance", "is": "Score of the classes"}.get(name, METRICS[name][0])


def _earlier(name: str, step: int, record: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """A line about the newest other measurement of the metric: what it found, or why it cannot be compared."""
    others = [each for each in records if name in each]
    others = [each for each in others if each["step"] != step or differences(_whole(record), _whole(each[name]))]
    if not others:
        return []
    other = others[-1]
    numbers = [(key, value) for key, value in other[name].items() if isinstance(value, list)]
    found = ", ".join(f"{key} {_figure(Estimate(*value), 4)}" for key, value in numbers)
    before = f"  measured before, at step {other['step']}: {found}"
    if changed := differences(record["protocol"], other[name]["protocol"]):
        return [f"{before}; not comparable, its protocol differs: {changed}"]
    drawn = differences(record["drawn"], other[name]["drawn"])
    return [f"{before}, by the same protocol" + (f"; drawn with {drawn}" if drawn else "")]


def _whole(record: dict[str, Any]) -> dict[str, Any]:
    return record["protocol"] | record["drawn"]


ESTIMATES: Mapping[str, Callable[[Run, EvaluateRequest, Path, Reporter], dict[str, Any]]] = {
    name: _estimate(name) for name in METRICS
}
"""As ``runs.report.ESTIMATES``."""
