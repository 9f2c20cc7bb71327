"""Evaluation of a run: computes the requested metrics, reports tables, and adds records to ``evaluation.json``."""

import dataclasses
import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax import figures
from ddpm_jax.data.dataset import check_example
from ddpm_jax.experiment import Run
from ddpm_jax.runs.likelihood import (
    BitsPerDim,
    Estimate,
    bits_per_dim,
    entropy_bounds,
    importance_sampled,
    mean_and_error,
    units,
)
from ddpm_jax.runs.quality import parzen_window
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import EvaluateRequest
from ddpm_jax.runs.workdir import load as load_run
from ddpm_jax.runs.workdir import read, weights
from ddpm_jax.system.files import write_json
from ddpm_jax.training.keys import check_seed

QUICK_TIMES, QUICK_EXAMPLES = 50, 500
"""The numbers of chain terms per example, and of examples, in the estimate at the end of training."""


def quick(folder: Path, reporter: Reporter) -> None:
    """Estimates the bits/dim of a finished run quickly; reports the result and adds it to ``evaluation.json``."""
    few = read(folder).process.schedule.num_steps - 1 <= QUICK_TIMES
    evaluate(EvaluateRequest(folder, num=QUICK_EXAMPLES, times=None if few else QUICK_TIMES), reporter)
    reporter.line(f"this is a quick estimate: ddpm-jax evaluate {folder} uses all terms of all test examples")


def evaluate(request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    """Measures the run in the workdir: reports tables, adds the record to ``evaluation.json``, and returns it.

    The same request resumes an interrupted measurement of the bound. Raises ValueError for options that are out of
    range or do not fit the run, FileNotFoundError for a folder without a run or data that are missing.
    """
    _check(request)
    run = load_run(request.workdir)
    metrics: Any = request.metrics or run.experiment.metrics
    request = dataclasses.replace(request, metrics=metrics)
    check_example(run.experiment.data, run.experiment.data.open(request.split)[0])
    if not request.clip:
        run = unclipped(run)
    record = {"step": run.step, "weights": weights(request.workdir, run.step), "protocol": request.protocol()}
    keep = _unfinished(request, run.step)
    if BOUND_TABLES.keys() & set(metrics):
        record["bpd"] = _bound(run, request, keep, reporter)
    for name in metrics:
        if name in ESTIMATES:
            record[name] = ESTIMATES[name](run, request, reporter)
    add_record(request.workdir / "evaluation.json", record)
    for path in request.workdir.glob("evaluation_*.npz"):  # also those of other checkpoints
        if path == keep or not path.name.startswith(f"evaluation_{run.step}_"):
            path.unlink()
    if request.json is not None:
        write_json(request.json, record)
    return record


def _check(request: EvaluateRequest) -> None:
    for name in ("num", "batch_size", "samples", "chains"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    check_seed(request.seed)


def unclipped(run: Run) -> Run:
    """The run without clipping of its estimates of x_0."""
    parameterization = run.experiment.parameterization.unclipped()
    return run._replace(experiment=dataclasses.replace(run.experiment, parameterization=parameterization))


def _unfinished(request: EvaluateRequest, step: int) -> Path:
    """The file that keeps an unfinished measurement; its name depends on the checkpoint and the protocol."""
    identity = json.dumps([step, request.protocol()], sort_keys=True)
    return request.workdir / f"evaluation_{step}_{zlib.crc32(identity.encode()):08x}.npz"


def _bound(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    source = run.experiment.data.open(request.split)
    measured = bits_per_dim(run, source, request.num, request.times, request.batch_size, request.seed, reporter, keep)
    for metric in request.metrics or ():
        if metric in BOUND_TABLES:
            reporter.line(BOUND_TABLES[metric](measured))
    if measured.rate is not None and measured.distortion is not None and "bpd" in (request.metrics or ()):
        reporter.line(coding_table(measured.rate, measured.distortion))
        picture = request.workdir / "rate_distortion.png"
        figures.rate_distortion(measured.rate, measured.distortion, picture)
        reporter.line(f"the whole rate-distortion curve is in {picture}")
    return measured.record()


def _importance(run: Run, request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    source = run.experiment.data.open(request.split)
    num = min(request.num or len(source), len(source))
    nats = importance_sampled(run, source, num, request.chains, request.batch_size, request.seed, reporter)
    _, per_pixel, pixels = units(run.experiment)
    estimate = mean_and_error(nats * per_pixel)
    unit = "bits per pixel" if pixels > 1 else "bits per example"
    reporter.line(f"log-likelihood by importance sampling, {unit}: {_figure(estimate)} ({request.chains} chains)")
    return {"log_likelihood": estimate, "chains": request.chains, "num_examples": num}


def _entropy(run: Run, request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    source, steps = run.experiment.data.open(request.split), run.experiment.process.schedule.num_steps
    num = min(request.num or len(source), len(source))
    times = sorted({max(2, round(steps * n / 10)) for n in range(11)}) if steps > 1 else []
    bounds = entropy_bounds(run, source, num, times, request.batch_size, request.seed, reporter)
    bounds = bounds * units(run.experiment)[0]
    rows = [f"{t:>6} {lower:>10.4f} {upper:>10.4f}" for t, (lower, upper) in zip(times, bounds, strict=True)]
    heading = "bounds on the entropy of x_(t-1) given x_t, bits/dim (2015, Eq. 24)"
    reporter.line("\n".join([heading, "     t      lower      upper", *rows]))
    return {"times": times, "lower": bounds[:, 0].tolist(), "upper": bounds[:, 1].tolist(), "num_examples": num}


def _parzen(run: Run, request: EvaluateRequest, reporter: Reporter) -> dict[str, Any]:
    measured = parzen_window(run, request, reporter)
    (mean, error), held_out = measured["nats"], measured["held_out"]
    spread = "" if error is None else f" +- {error:.1f}"
    protocol = f"{measured['samples']} samples, {measured['num_examples']} examples"
    width = f"width {measured['width']:.3f} chosen on {held_out} training images"
    reporter.line(f"Parzen window: {mean:.1f}{spread} nats, {mean / math.log(2):.1f} bits ({protocol}, {width})")
    return measured


ESTIMATES: Mapping[str, Callable[[Run, EvaluateRequest, Reporter], dict[str, Any]]] = {
    "importance": _importance,
    "entropy": _entropy,
    "parzen": _parzen,
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


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a record to the list in the JSON file `path`, in place of one with the same step and protocol."""
    records = json.loads(path.read_text()) if path.exists() else []
    record = json.loads(json.dumps(record))  # tuples become lists, as in the file
    by_protocol = {json.dumps([other["step"], other["protocol"]]): other for other in (*records, record)}
    write_json(path, list(by_protocol.values()))
