"""Evaluation of a run: computes the requested metrics, reports tables, and adds records to ``evaluation.json``."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax import figures
from ddpm_jax.data.dataset import check_examples
from ddpm_jax.runs import classifiers, fidelity, models, ode
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.chunks import affordable, chunk_size, kept
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import protocol_of
from ddpm_jax.runs.image_report import are_images, evaluate_images
from ddpm_jax.runs.likelihood import (
    BitsPerDim,
    Estimate,
    bound_work,
    entropy_work,
    importance_work,
    mean_and_error,
    summarize,
    units,
)
from ddpm_jax.runs.quality import distances_text, memorisation, parzen_window
from ddpm_jax.runs.records import finish, read_records, unfinished
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.steps import check_steps, marked, stepped
from ddpm_jax.runs.versions import made_with
from ddpm_jax.runs.workdir import find, weights_in
from ddpm_jax.runs.workdir import load as load_run
from ddpm_jax.sampling import Run
from ddpm_jax.system.files import check_writable
from ddpm_jax.training import distributed
from ddpm_jax.training.digests import digest
from ddpm_jax.training.keys import check_seed


def evaluate(request: EvaluateRequest, reporter: Reporter, seconds: float | None = None) -> dict[str, Any]:
    """Measures the run: reports tables, adds the record to ``evaluation.json`` in its `models.home`, and returns it.

    If ``request.workdir`` has images instead, these are measured: see `evaluate_images`.
    All devices of all processes share the work; every process must call this function. With `seconds` the bound is
    evaluated on as many examples as take about so long, at most ``request.num``. The same request resumes an
    interrupted measurement. Raises ValueError for options that are out of range or do not fit the run,
    FileNotFoundError for a folder without a run or data that are missing.
    """
    if are_images(request):
        with distributed.all_or_none(f"another process cannot evaluate {request.workdir}"):
            _check(request)
        return evaluate_images(request, reporter)
    run, request = _ready(request, reporter)
    with unfinished(models.home(request.workdir), f"evaluation_{run.step}", _identity(request, run)) as keep:
        record = _measured(run, request, keep, reporter, seconds)
        finish(record, keep, keep.parent, request.json)
    return record


def _measured(
    run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter, seconds: float | None
) -> dict[str, Any]:
    """The record of a measurement."""
    record = {"step": run.step, "weights": weights_in(request.workdir, run.step, request.weights)}
    if BOUND_TABLES.keys() & set(request.metrics or ()):
        record["bpd"] = _bound(run, request, keep / "bound", reporter, seconds)
        if seconds is not None:
            request = dataclasses.replace(request, num=record["bpd"]["num_examples"])
    for name in request.metrics or ():
        if name in ESTIMATES:
            record[name] = ESTIMATES[name](run, request, keep, reporter)
    return record | {"protocol": protocol_of(request, run.experiment.data.image_shape)} | made_with()


def _ready(request: EvaluateRequest, reporter: Reporter) -> tuple[Run, EvaluateRequest]:
    """The run and the request with its metrics, after all that can be checked before the work."""
    refusal = f"another process cannot evaluate {request.workdir}"
    with distributed.all_or_none(refusal):
        _check(request)
        find(request.workdir)
    run = load_run(request.workdir, request.weights, request.checkpoint)
    with distributed.all_or_none(refusal):
        if run.experiment.data.listing is not None:
            run.experiment.data.listing(reporter.track)
        check_examples(run.experiment.data, request.split)
        read_records(models.home(request.workdir) / "evaluation.json")  # damage is reported before the work
    metrics: Any = request.metrics or run.experiment.metrics
    request = dataclasses.replace(request, metrics=metrics)
    with distributed.all_or_none(refusal):
        classifiers.check_metrics(run, request)
        check_steps(request)
        if "nll" in metrics:
            ode.check(run, request.tolerance, request.dequantization)
        fidelity.check(run, request)
    return run if request.clip else unclipped(run), request


def _check(request: EvaluateRequest) -> None:
    for name in ("num", "batch_size", "samples", "chains"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    check_seed(request.seed)
    if request.json is not None and distributed.is_leader():
        check_writable(request.json)


def unclipped(run: Run) -> Run:
    """The run without clipping of its estimates of x_0."""
    parameterization = run.experiment.parameterization.unclipped()
    return run._replace(experiment=dataclasses.replace(run.experiment, parameterization=parameterization))


def batch_size(run: Run, request: EvaluateRequest) -> int:
    """The number of examples that a device evaluates together, by default those of `fitting_batch`."""
    return request.batch_size or fitting_batch(run.experiment.data.image_shape)


def fitting_batch(image_shape: tuple[int, ...]) -> int:
    """120 examples, or as many as have the pixels of 120 at 64x64."""
    return chunk_size(120, image_shape)


def _identity(request: EvaluateRequest, run: Run) -> list[Any]:
    """What the results depend on: parameters, data and protocol."""
    data = data_identity(run.experiment.data, request.split)["digest"]
    identity = [digest(run.params), data, protocol_of(request, run.experiment.data.image_shape)]
    if request.reference is not None:
        identity.append(fidelity.reference_of(run, request).identity(request.split))
    return identity


def _bound(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter, seconds: float | None) -> dict[str, Any]:
    source, num, size = _examples(run, request)
    run, visits, measured_from = stepped(run, request, reporter)
    keep = marked(keep, measured_from)
    work = bound_work(run, source, num, request.times, size, request.seed, visits)
    if seconds is not None:
        work = work._replace(num=affordable(work, keep, seconds, reporter))
    whole = request.times is None and visits is None
    measured = summarize(run.experiment, list(kept(work, keep, reporter)), whole)
    for metric in request.metrics or ():
        if metric in BOUND_TABLES:
            reporter.line(BOUND_TABLES[metric](measured))
    if measured.rate is not None and measured.distortion is not None and "bpd" in (request.metrics or ()):
        reporter.line(coding_table(measured.rate, measured.distortion))
        picture = models.home(request.workdir) / "rate_distortion.png"
        if distributed.is_leader():
            figures.rate_distortion(measured.rate, measured.distortion, picture)
        reporter.line(f"the whole rate-distortion curve is in {picture}")
    if visits is None:
        return measured.record()
    of_all_steps = dict.fromkeys(("K", "K_over_null"))  # the K of 2015 has a last step of its own
    return measured.record() | of_all_steps | {"visits": visits.tolist(), "statistics": measured_from}


def _examples(run: Run, request: EvaluateRequest) -> tuple[Sequence, int, int]:
    """The split, the number of its examples to measure, and how many of them a device evaluates together."""
    source = run.experiment.data.open(request.split)
    num = min(request.num or len(source), len(source))
    return source, num, min(batch_size(run, request), num)


def _importance(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    source, num, size = _examples(run, request)
    work = importance_work(run, source, num, request.chains, size, request.seed)
    nats = np.concatenate([result["nats"] for result in kept(work, keep / "importance", reporter)])
    _, per_pixel, pixels = units(run.experiment)
    estimate = mean_and_error(nats * per_pixel)
    unit = "bits per pixel" if pixels > 1 else "bits per example"
    reporter.line(f"log-likelihood by importance sampling, {unit}: {_figure(estimate)} ({request.chains} chains)")
    return {"log_likelihood": estimate, "chains": request.chains, "num_examples": num}


def _nll(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    (source, num, size), how = _examples(run, request), request.dequantization
    work = ode.ode_work(run, source, num, request.tolerance, how, size, request.seed)
    found = list(kept(work, keep / "nll", reporter))
    nats, calls = (np.concatenate([result[name] for result in found]) for name in ("nats", "calls"))
    if failed := int(np.isnan(nats).sum()):
        raise ValueError(f"the solver found no solution for {failed} of {num} examples: give a larger --tolerance")
    estimate = mean_and_error(nats * units(run.experiment)[0])
    protocol = (
        f"{num} examples, dequantization {how}, tolerance {request.tolerance:g}, {calls.mean():.0f} network calls"
    )
    reporter.line(f"negative log-likelihood of the probability-flow ODE, bits/dim: {_figure(estimate)} ({protocol})")
    return {"bits_per_dim": estimate, "num_examples": num, "calls": float(calls.mean())}


def _entropy(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    (source, num, size), steps = _examples(run, request), run.experiment.process.schedule.num_steps
    times = sorted({max(2, round(steps * n / 10)) for n in range(11)}) if steps > 1 else []
    work = entropy_work(run, source, num, times, size, request.seed)
    found = np.concatenate([result["bounds"] for result in kept(work, keep / "entropy", reporter)])
    bounds = found.mean(axis=0) * units(run.experiment)[0]
    rows = [f"{t:>6} {lower:>10.4f} {upper:>10.4f}" for t, (lower, upper) in zip(times, bounds, strict=True)]
    heading = "bounds on the entropy of x_(t-1) given x_t, bits/dim (2015, Eq. 24)"
    reporter.line("\n".join([heading, "     t      lower      upper", *rows]))
    return {"times": times, "lower": bounds[:, 0].tolist(), "upper": bounds[:, 1].tolist(), "num_examples": num}


def _parzen(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    measured = parzen_window(run, request, keep, reporter)
    (mean, error), held_out = measured["nats"], measured["held_out"]
    spread = "" if error is None else f" +- {error:.1f}"
    drawn = "".join(f", {name} {value}" for name, value in request.sampling().items())
    protocol = f"{measured['samples']} samples{drawn}, {measured['num_examples']} examples"
    width = f"width {measured['width']:.3f} chosen on {held_out} training images"
    reporter.line(f"Parzen window: {mean:.1f}{spread} nats, {mean / math.log(2):.1f} bits ({protocol}, {width})")
    return measured


def _memorisation(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    measured = memorisation(run, request, keep, reporter)
    reporter.line(distances_text(measured))
    return measured


def _accuracy(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    work = classifiers.accuracy_work(run, *_examples(run, request), request.seed)
    record = classifiers.summarize(run, list(kept(work, keep / "accuracy", reporter)))
    reporter.line(classifiers.table(run, record, request.split))
    return record


ESTIMATES: Mapping[str, Callable[[Run, EvaluateRequest, Path, Reporter], dict[str, Any]]] = {
    "nll": _nll,
    "importance": _importance,
    "entropy": _entropy,
    "parzen": _parzen,
    "memorisation": _memorisation,
    "accuracy": _accuracy,
    **fidelity.ESTIMATES,
}
"""The metrics that are not computed from the terms of the bound: each reports its result and returns its record."""


def bits_table(measured: BitsPerDim) -> str:
    """The parts of the bound in bits/dim with their standard errors."""
    heading = f"bits/dim, mean +- standard error: {measured.num_examples} examples, {measured.times} chain terms each"
    return _table(heading, {name: getattr(measured, name) for name in ("prior", "chain", "decoder", "total")})


def K_table(measured: BitsPerDim) -> str:
    """The lower bound K of 2015 and its gain over the log-likelihood under the prior, with their standard errors."""
    unit = "bits per pixel" if measured.pixels > 1 else "bits per example"
    heading = f"{unit}, mean +- standard error: {measured.num_examples} examples, {measured.times} chain terms each"
    heading += "; K has exact cross-entropies, valid for any data, in place of the entropies of 2015, Eq. 14"
    return _table(heading, {"K": measured.K, "K - L_null": measured.K_over_null})


def _table(heading: str, rows: Mapping[str, Estimate]) -> str:
    width = max(map(len, rows))
    return "\n".join([heading, *(f"{name:{width}} {_figure(estimate)}" for name, estimate in rows.items())])


def _figure(estimate: Estimate) -> str:
    mean, error = estimate
    return f"{mean:9.4f}" + ("" if error is None else f" +- {error:.4f}")


BOUND_TABLES: Mapping[str, Callable[[BitsPerDim], str]] = {"bpd": bits_table, "K": K_table}
"""The metrics that are computed from the terms of the bound, and the functions that make their tables."""


def coding_table(rate: np.ndarray, distortion: np.ndarray) -> str:
    """Rate and distortion of progressive lossy compression at ten times (Ho et al. 2020, Table 4)."""
    steps = sorted({max(1, len(rate) * n // 10) for n in range(1, 11)}, reverse=True)
    rows = [f"{n:>13} {rate[n - 1]:>15.5f} {distortion[n - 1]:>18.5f}" for n in steps]
    return "\n".join(["reverse steps  rate (bits/dim)  RMSE (0-255 scale)", *rows])
