"""Quality of samples by features: their features and those of what they are compared with, as `runs.scores` has it.

A number is reported and recorded with the protocol that it depends on.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.data import Data
from ddpm_jax.experiment import labels
from ddpm_jax.runs import models, references, sample
from ddpm_jax.runs.chunks import Work, kept
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import RESIZINGS, Features, check_images, features_of, of_data, of_samples, weights_of
from ddpm_jax.runs.records import all_records, differences
from ddpm_jax.runs.references import Reference
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.scores import METRICS, Needs, Sets, Vectors, heading, unusual
from ddpm_jax.runs.steps import model
from ddpm_jax.sampling import Run

LEAST = 40
"""The least number of samples and of reference images, so that each block of a jackknife has two."""
AT_ONCE = 64
"""The number of images of a data set whose features a device computes together."""


class Samples(NamedTuple):
    """Samples that are measured: drawn from a run, or images on disk."""

    num: int
    image_shape: tuple[int, ...]
    features: Callable[[Features], Work]
    """Their features, as chunks."""
    folder: Callable[[Path], Path]
    """The folder for these chunks, from that of the measurement."""
    drawn: Mapping[str, Any]
    """As in `Sets`."""


def check(run: Run, request: EvaluateRequest) -> None:
    """Raises ValueError, before anything is drawn, if the metrics of this module cannot be computed as requested."""
    names, data = [name for name in request.metrics or () if name in METRICS], run.experiment.data
    if request.reference is not None and not names:
        raise ValueError(f"--reference applies to --metrics {' '.join(METRICS)}")
    if not names:
        return
    check_images(names[0], data.image_shape)
    if data.levels is None:
        raise ValueError(f"--metrics {names[0]} is for images of bytes, not of floats: choose another metric")
    check_sets(names, request, request.num_samples, data.image_shape, reference_of(run, request))
    sample.check(request.drawing())
    sample.check_run(run, request.drawing())


def check_sets(
    names: Sequence[str],
    request: EvaluateRequest,
    num_samples: int,
    image_shape: tuple[int, ...],
    reference: Reference | None,
) -> None:
    """Raises ValueError if these metrics and features cannot compare `num_samples` samples with the reference."""
    if "is" in names and (request.features == "pixels" or Path(request.features).suffix == ".py"):
        what = f"needs the classes of the Inception network: leave out --features {request.features}"
        raise ValueError(f"--metrics is {what}, or give the workdir of a classifier")
    if "sfid" in names and request.features not in RESIZINGS:
        what = f"needs the spatial features of the Inception network: leave out --features {request.features}"
        raise ValueError(f"--metrics sfid {what}")
    if num_samples < LEAST:
        raise ValueError(f"--samples must be at least {LEAST} for --metrics {names[0]}, got {num_samples}")
    for name in names:
        _check_reference(name, METRICS[name].needs, request, image_shape, reference)
    if reference is not None and {"fid", "sfid"} & set(names):
        references.check_features(reference, request.features)
    weights_of(request, image_shape)
    if reference is not None and reference.statistics is not None and {"fid", "sfid"} & set(names):
        references.check_statistics(reference, features_of(request, image_shape), image_shape, "sfid" in names)


def _check_reference(
    name: str, needs: Needs, request: EvaluateRequest, image_shape: tuple[int, ...], reference: Reference | None
) -> None:
    if needs == "nothing":
        return
    if reference is None:
        raise ValueError(f"--metrics {name} compares with other images: give --reference, such as a workdir or a file")
    if reference.image_shape not in (None, tuple(image_shape)):
        found = f"{tuple(image_shape)}, those of --reference {reference.name} {reference.image_shape}"
        raise ValueError(f"--metrics {name} compares images of one shape: the samples have {found}")
    if needs == "moments" and reference.statistics is not None:
        return
    if reference.data is None:
        raise ValueError(f"--metrics {name} compares with images, --reference {reference.name} has statistics only")
    if needs == "splits" and not reference.splits:
        raise ValueError(f"--metrics {name} needs training and test images, --reference {reference.name} has no splits")
    for split, num in _splits(needs, reference.data, request).items():
        if num < LEAST:
            found = f"got --num {request.num}" if num == request.num else f"the {split} split has {num}"
            raise ValueError(f"--metrics {name} needs at least {LEAST} images to compare with, {found}")


def _splits(needs: Needs, data: Data, request: EvaluateRequest) -> dict[str, int]:
    """The splits that samples are compared with, and how many images of each: of a training set beside others all."""

    def limited(split: str) -> int:
        length = len(data.open(split))
        return length if request.num is None else min(request.num, length)

    if needs == "splits":
        return {"train": len(data.open("train")), "test": limited("test")}
    return {request.split: limited(request.split)}


def reference_of(run: Run, request: EvaluateRequest) -> Reference:
    """What samples of the run are compared with: by default its own data."""
    if request.reference is None:
        return references.of_run(request.workdir, run.experiment.data)._replace(is_own=True)
    return references.named(request.reference, run.experiment.data.image_shape[-1])


def of_run(run: Run, request: EvaluateRequest, reporter: Reporter) -> Samples:
    """The samples that the request describes, drawn from the run as their features are computed."""
    asked = request.drawing()
    chosen = model(run, asked, reporter)
    draws = sample.draws(run, asked, labels(run.experiment, asked.num), chosen=chosen)
    drawn = {
        "sampler": sample.sampler_name(asked, run),
        "steps": asked.steps or run.experiment.process.schedule.num_steps,
    }
    drawn |= {each: getattr(asked, each) for each in ("spacing", "eta", "variance", "guidance", "weights", "seed")}
    drawn |= {"clip": request.clip} | chosen.record()
    shape = tuple(run.experiment.data.image_shape)
    return Samples(asked.num, shape, lambda features: of_samples(features, draws), chosen.folder, drawn)


def of_images(data: Data, request: EvaluateRequest, known: Mapping[str, Any]) -> Samples:
    """Images on disk, the first ``request.samples`` of them."""
    length = len(data.open("train"))
    num = length if request.samples is None else min(request.samples, length)
    size = request.batch_size or AT_ONCE
    shape = tuple(data.image_shape)
    return Samples(num, shape, lambda features: of_data(features, data, "train", num, size), lambda keep: keep, known)


def sets(
    name: str, samples: Samples, reference: Reference | None, request: EvaluateRequest, keep: Path, reporter: Reporter
) -> Sets:
    """The features of samples and of what they are compared with, which are kept in `keep` and resumed from there."""
    features, needs = features_of(request, samples.image_shape), METRICS[name].needs
    found = _all(samples.features(features), samples.folder(keep / "features_of_samples"), reporter)
    protocol = {"samples": samples.num, **features.protocol}
    statistics = reference.statistics if reference is not None and needs == "moments" else None
    if reference is None or needs == "nothing":
        return Sets(found, None, None, None, "", protocol, dict(samples.drawn))
    if statistics is not None:
        protocol |= references.stated(reference)
        return Sets(found, None, None, statistics, references.described(reference), protocol, dict(samples.drawn))
    nums = _splits(needs, reference.images, request)
    size = request.batch_size or AT_ONCE
    works = {split: of_data(features, reference.images, split, num, size) for split, num in nums.items()}
    vectors = [_all(work, keep / f"features_of_{split}", reporter) for split, work in works.items()]
    compared, about = _compared(reference, nums)
    test = vectors[1]["vectors"] if needs == "splits" else None
    return Sets(found, vectors[0], test, None, compared, protocol | about, dict(samples.drawn))


def _compared(reference: Reference, nums: Mapping[str, int]) -> tuple[str, dict[str, Any]]:
    """The reference images of each split in words, and their part of the protocol."""
    of, splits = "" if reference.is_own else f" of {reference.name}", list(nums)
    if len(splits) > 1:
        words = " and ".join(f"{num:,} {split} images" for split, num in nums.items())
        digest = reference.identity("train")[:16]
        return words + of, {"data": reference.name} | dict(nums) | {"data_digest": digest}
    words = f"{splits[0]} images" if reference.splits else "images"
    return f"{nums[splits[0]]:,} {words}{of}", references.about(reference, splits[0], nums[splits[0]])


def _all(work: Work, keep: Path, reporter: Reporter) -> Vectors:
    found = list(kept(work, keep, reporter))
    return {name: np.concatenate([result[name] for result in found]) for name in found[0]}


def measure(
    name: str,
    samples: Samples,
    reference: Reference | None,
    request: EvaluateRequest,
    keep: Path,
    reporter: Reporter,
    step: int | None,
    records: Path | None,
) -> dict[str, Any]:
    """Reports a metric of the samples, and the newest other one in `records`, and returns its record."""
    found = sets(name, samples, reference, request, keep, reporter)
    measured = METRICS[name].measure(found)
    reporter.line(f"{heading(name, found)}: {measured.text}")
    protocol = json.loads(json.dumps({"protocol": found.protocol, "drawn": found.drawn}))
    record = measured.record | protocol
    for line in _earlier(name, step, record, [] if records is None else all_records(records)):
        reporter.line(line)
    return record


def _earlier(name: str, step: int | None, record: dict[str, Any], records: list[dict[str, Any]]) -> list[str]:
    """A line about the newest other measurement of the metric: what it found, or why it cannot be compared."""
    others = [each for each in records if name in each]
    others = [each for each in others if each["step"] != step or differences(_whole(record), _whole(each[name]))]
    if not others:
        return []
    other = others[-1]
    numbers = [(key, value) for key, value in other[name].items() if isinstance(value, list)]
    found = ", ".join(f"{key} {value:z.4f} +- {error:.4f}" for key, (value, error) in numbers)
    at = "" if other["step"] is None else f", at step {other['step']}"
    before = f"  measured before{at}: {found}"
    if changed := differences(record["protocol"], other[name]["protocol"]):
        return [f"{before}; not comparable, its protocol differs: {changed}"]
    return [f"{before}, by the same protocol{_other_samples(record['drawn'], other[name]['drawn'])}"]


def _other_samples(mine: dict[str, Any], other: dict[str, Any]) -> str:
    """How the samples of another measurement differ."""
    if "images" in mine or "images" in other:
        return f"; its samples: {', '.join(unusual(other))}"
    drawn = differences(mine, other)
    return f"; drawn with {drawn}" if drawn else ""


def _whole(record: dict[str, Any]) -> dict[str, Any]:
    return record["protocol"] | record["drawn"]


def _estimate(name: str) -> Callable[[Run, EvaluateRequest, Path, Reporter], dict[str, Any]]:
    """The function that measures a run by this metric: it reports the result and returns its record."""

    def of(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
        samples, reference = of_run(run, request, reporter), reference_of(run, request)
        records = models.home(request.workdir) / "evaluation.json"
        return measure(name, samples, reference, request, keep, reporter, run.step, records)

    return of


ESTIMATES: Mapping[str, Callable[[Run, EvaluateRequest, Path, Reporter], dict[str, Any]]] = {
    name: _estimate(name) for name in METRICS
}
"""As ``runs.report.ESTIMATES``."""
