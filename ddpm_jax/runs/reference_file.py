"""Files of reference statistics, computed from images with the features that `evaluate` uses."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.data.dataset import check_examples
from ddpm_jax.metrics import Moments, Statistics, merge, moments, read_statistics, write_statistics
from ddpm_jax.runs import references
from ddpm_jax.runs.chunks import Work, kept
from ddpm_jax.runs.evaluate_requests import EvaluateRequest, ReferenceRequest
from ddpm_jax.runs.features import features_of, of_data
from ddpm_jax.runs.fidelity import AT_ONCE, LEAST
from ddpm_jax.runs.records import unfinished
from ddpm_jax.runs.references import Reference
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.files import check_writable, whole_file
from ddpm_jax.training import distributed

GROUP = 50_000
"""The number of images whose features are in memory together; the moments of groups are merged."""


def reference_to_file(request: ReferenceRequest, reporter: Reporter | None = None) -> str:
    """Writes the statistics of the features of reference images to ``request.out``. Returns a line that names it.

    All devices of all processes share the work; every process must call this function. The same request resumes an
    interrupted one. A file that holds these statistics already is kept; another is replaced only with ``overwrite``.
    Raises ValueError for options that are out of range or do not fit the images, FileNotFoundError if there are none.
    """
    with distributed.all_or_none(f"another process cannot compute {request.out}"):
        _check(request)
        source = references.named(request.source, request.channels)
        num = _check_source(source, request)
        features = features_of(_measuring(request), source.images.image_shape)
        made = dict(features.protocol) | references.about(source, request.split, num)
        made |= {"image_shape": list(source.images.image_shape)}
        there = distributed.is_leader() and not request.overwrite and _holds(request.out, made)
    if distributed.from_leader([there]) == [True]:
        return f"{request.out} holds these statistics already"
    work = of_data(features, source.images, request.split, num, request.batch_size or AT_ONCE)
    _write(request.out, work, made, reporter or Reporter())
    return f"statistics of {num:,} images in {request.out}"


def _write(out: Path, work: Work, made: dict[str, Any], reporter: Reporter) -> None:
    """Computes the features, which are kept beside the file until it is written, and writes their statistics."""
    with unfinished(out.resolve().parent, f"{out.name}.part", made) as part:
        found = _moments(work, part, reporter)
        distributed.wait_for_all("reference")  # until then other processes read what is kept
        with distributed.all_or_none(f"process 0 cannot write {out}"):
            if distributed.is_leader():
                with whole_file(out) as whole:
                    write_statistics(whole, Statistics(found["vectors"], found.get("spatial"), made))
                shutil.rmtree(part, ignore_errors=True)


def _measuring(request: ReferenceRequest) -> EvaluateRequest:
    """The request of a measurement with these features."""
    return EvaluateRequest(
        Path(request.source),
        metrics=("fid", "sfid"),
        features=request.features,
        inception_weights=request.inception_weights,
    )


def _check(request: ReferenceRequest) -> None:
    for name, value in (("num", request.num), ("batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    if request.out.suffix != ".npz":
        raise ValueError(f"{request.out}: give the name of a file that ends in .npz")
    if distributed.is_leader():
        check_writable(request.out)


def _check_source(source: Reference, request: ReferenceRequest) -> int:
    """The number of images. Raises ValueError if the source has none of bytes, or too few."""
    data = source.images
    if len(data.image_shape) != 3 or data.levels is None:
        raise ValueError(f"statistics are of images of bytes, {source.name} has data of shape {data.image_shape}")
    check_examples(data, request.split)
    num = min(request.num or len(data.open(request.split)), len(data.open(request.split)))
    if num < LEAST:
        raise ValueError(f"statistics need at least {LEAST} images, {source.name} gives {num}")
    return num


def _holds(path: Path, made: dict[str, Any]) -> bool:
    """Whether the file has the statistics that are made so. Raises ValueError if it has something else."""
    if not path.exists():
        return False
    with suppress(ValueError):
        if read_statistics(path).made == made:
            return True
    raise ValueError(f"{path} exists and holds something else: choose another name, or --overwrite")


def _moments(work: Work, part: Path, reporter: Reporter) -> dict[str, Moments]:
    """The moments of each kind of features. Up to `GROUP` images they are those of one pass over all of them."""
    groups: dict[str, list[Moments]] = {}
    for vectors in _groups(work, part, reporter):
        for name, some in vectors.items():
            if name != "logits":
                groups.setdefault(name, []).append(moments(some))
    return {name: merge(*parts) for name, parts in groups.items()}


def _groups(work: Work, part: Path, reporter: Reporter) -> Iterator[dict[str, np.ndarray]]:
    chunks, pending = max(1, GROUP // work.size), []
    for number, result in enumerate(kept(work, part, reporter), 1):
        pending.append(result)
        if len(pending) == chunks or number == len(work.firsts):
            yield {name: np.concatenate([each[name] for each in pending]) for name in pending[0]}
            pending = []
