"""Evaluation of images on disk, which other programs may have made, by the metrics of samples."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_jax import figures
from ddpm_jax.data import Data, files
from ddpm_jax.data.image_set import image_set
from ddpm_jax.runs import fidelity, models
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import of_path, pictures
from ddpm_jax.runs.quality import MOST_IMAGES, distances, distances_text
from ddpm_jax.runs.records import finish, read_records, unfinished
from ddpm_jax.runs.references import Reference, named
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.scores import METRICS
from ddpm_jax.runs.versions import made_with
from ddpm_jax.runs.workdir import is_workdir
from ddpm_jax.training import distributed

ARCHIVES = (".npz", ".zip")
"""The endings of files of images."""


class Ready(NamedTuple):
    """What is measured, after all that can be checked before the work."""

    request: EvaluateRequest
    """The request, with its metrics."""
    images: Data
    reference: Reference | None
    known: dict[str, Any]
    """What the record has of the images."""


def are_images(request: EvaluateRequest) -> bool:
    """Whether images are to be measured, and not a run: an archive, or a folder with pictures that is no workdir.

    Raises ValueError for such a folder without a reference, which may be the folder of several runs.
    """
    path = request.workdir
    if path.suffix in ARCHIVES:
        return True
    if not path.is_dir() or is_workdir(path) or not files.find(path).files:
        return False
    if request.reference is None and request.metrics != ("is",):
        raise ValueError(f"{path} is not a workdir; to measure the pictures in it, give --reference")
    return True


def evaluate_images(request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    """Measures the images at ``request.workdir``: reports the numbers, and returns the record.

    The record is added to ``evaluation.json`` of the workdir that ``request.reference`` names, if it names one. Every
    process must call this function. The same request resumes an interrupted measurement. Raises ValueError for options
    that are out of range or are not for images, FileNotFoundError for files that are missing.
    """
    with distributed.all_or_none(f"another process cannot evaluate {request.workdir}"):
        ready = _ready(request)
    workdir = None if ready.reference is None else ready.reference.workdir
    folder = None if workdir is None else models.home(workdir)
    with unfinished(_place(folder, request), "evaluation_of_images", _protocol(ready)) as keep:
        record = _measured(ready, folder, keep, reporter)
        finish(record, keep, folder, request.json)
    return record


def _place(folder: Path | None, request: EvaluateRequest) -> Path:
    """The folder for partial results: that of the record, or the working folder. The images may be read-only."""
    return folder or (Path() if request.json is None else request.json.resolve().parent)


def _measured(ready: Ready, folder: Path | None, keep: Path, reporter: Reporter) -> dict[str, Any]:
    request, reference = ready.request, ready.reference
    record: dict[str, Any] = {"step": None, "weights": None, "images": ready.known}
    drawn = {"images": request.workdir.name, "sha256": ready.known["sha256"][:16]}
    samples = fidelity.of_images(ready.images, request, drawn)
    for name in request.metrics or ():
        if name in METRICS:
            records = None if folder is None else folder / "evaluation.json"
            record[name] = fidelity.measure(name, samples, reference, request, keep, reporter, None, records)
        elif reference is not None:
            record[name] = distances(_first(ready), reference.images, reporter)
            reporter.line(distances_text(record[name]))
    return record | {"protocol": _protocol(ready)} | made_with()


def _first(ready: Ready) -> Any:
    """The first images, as many as memorisation is measured on."""
    source = ready.images.open("train")
    num = min(len(source), MOST_IMAGES, ready.request.samples or MOST_IMAGES)
    return pictures(source, range(num), ready.images.levels)


def _protocol(ready: Ready) -> dict[str, Any]:
    """The options and files that the results depend on, as they are recorded."""
    names = ("metrics", "split", "num", "samples", "features", "reference")
    options = {name: getattr(ready.request, name) for name in names}
    compared = None if ready.reference is None else ready.reference.identity(ready.request.split)
    if isinstance(ready.request.features, Path):
        options |= of_path(ready.request.features, ready.images.image_shape).protocol
    return options | {"images": ready.known["sha256"], "reference_digest": compared}


def _ready(request: EvaluateRequest) -> Ready:
    request = dataclasses.replace(request, metrics=request.metrics or ("fid",))
    _check_options(request)
    archive = request.workdir.suffix == ".npz"
    images = image_set(request.workdir)
    reference = None if request.reference is None else named(request.reference, _channels(images if archive else None))
    if not archive and reference is not None and reference.image_shape is not None:
        images = image_set(request.workdir, reference.image_shape[-1])
    names: Sequence[str] = request.metrics or ()
    of_features = [name for name in names if name in METRICS]
    if of_features:
        samples = fidelity.of_images(images, request, {})
        fidelity.check_sets(of_features, request, samples.num, samples.image_shape, reference)
    if "memorisation" in names:
        _check_memorisation(request, images, reference)
    if reference is not None and reference.workdir is not None:
        # before the work: a damaged file is reported now
        read_records(models.home(reference.workdir) / "evaluation.json")
    return Ready(request, images, reference, _known(request, images))


def _channels(images: Data | None) -> int:
    return 3 if images is None else images.image_shape[-1]


def _known(request: EvaluateRequest, images: Data) -> dict[str, Any]:
    """What identifies the images, and what made them if this library did."""
    listing = images.listing
    digest = "" if listing is None else listing().digest
    known = {"path": str(request.workdir), "sha256": digest, "num": len(images.open("train"))}
    made = figures.provenance_of(request.workdir)
    return known if made is None else known | {"provenance": made}


def _check_options(request: EvaluateRequest) -> None:
    """Raises ValueError for metrics that need a run, and for options of samples that are drawn."""
    for name in request.metrics or ():
        if name not in (*METRICS, "memorisation"):
            raise ValueError(f"--metrics {name} needs the workdir of a run, {request.workdir} has images")
    usual = {"weights": "ema", "checkpoint": "newest", "seed": 0, "times": None}
    given = [*request.sampling(), *(name for name, value in usual.items() if getattr(request, name) != value)]
    others = [f"--{name}" for name in given]
    if others := others + ([] if request.clip else ["--no-clip"]):
        raise ValueError(f"{others[0]} is for runs: leave it out, {request.workdir} has images")


def _check_memorisation(request: EvaluateRequest, images: Data, reference: Reference | None) -> None:
    if reference is None or not reference.splits:
        raise ValueError(
            "--metrics memorisation needs training and test images: give as --reference a workdir, an experiment or a "
            "TFDS data set"
        )
    if request.split == "train":
        raise ValueError("--metrics memorisation compares samples with test images: leave out --split train")
    if reference.image_shape != tuple(images.image_shape):
        found = f"{images.image_shape}, those of --reference {reference.name} {reference.image_shape}"
        raise ValueError(f"--metrics memorisation compares images of one shape: the samples have {found}")
