"""The quick estimate of the likelihood at the end of training."""

import dataclasses
import json
from pathlib import Path

import jax

from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.report import evaluate, fitting_batch
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.workdir import read
from ddpm_jax.training import distributed

TIMES, EXAMPLES, SAMPLES = 50, 500, 64
"""The numbers of chain terms per example and of samples, and the greatest number of examples."""
LEAST_SECONDS, SHARE = 30.0, 0.1
"""The bound is estimated in this share of the training time, and in 30 seconds if that is longer."""


def quick(folder: Path, step: int, reporter: Reporter) -> None:
    """Estimates the bits/dim of a run that is finished after `step` steps, unless ``evaluation.json`` has a record.

    Reports the result and adds it to ``evaluation.json``. The bound takes about a tenth of the time that was trained,
    or 30 seconds: the number of examples, at most 500, follows from that. Other metrics of the experiment take their
    time besides. Every process must call this function.
    """
    records, experiment = folder / "evaluation.json", read(folder)
    (there,) = distributed.from_leader([any(record["step"] == step for record in read_records(records))])
    if there:
        reporter.line(f"{records} has an estimate: ddpm-jax evaluate {folder} uses all terms")
        return
    seconds, size = time_and_batch(trained_rate(folder), step * experiment.batch_size, experiment.data.image_shape)
    (size,) = distributed.from_leader([size])
    request = EvaluateRequest(
        folder,
        metrics=experiment.metrics,  # type: ignore[arg-type]
        num=EXAMPLES,
        times=TIMES if experiment.process.schedule.num_steps - 1 > TIMES else None,
        samples=SAMPLES,
        batch_size=size,
    )
    if experiment.is_classifier:  # a call of the network for each example, where the bound takes hundreds
        evaluate(dataclasses.replace(request, num=None, times=None), reporter)
        return
    evaluate(request, reporter, seconds)
    reporter.line(f"this is a quick estimate: ddpm-jax evaluate {folder} uses all terms of all test examples")


def trained_rate(folder: Path) -> float | None:
    """The number of images that the run trained in a second, by the last row of its log; None without a log."""
    log = folder / "metrics.jsonl"
    rows = [json.loads(row) for row in log.read_text().splitlines()] if log.is_file() else []
    return next((row["images_per_second"] for row in reversed(rows) if row.get("images_per_second")), None)


def time_and_batch(rate: float | None, images: int, image_shape: tuple[int, ...]) -> tuple[float, int]:
    """(seconds, examples that a device evaluates together) for a run that trained `images` images at this rate.

    A chunk of examples is to take about a tenth of the time, if an evaluation of the network costs as much as its
    training on an image.
    """
    fitting = fitting_batch(image_shape)
    if rate is None:
        return LEAST_SECONDS, fitting
    seconds = max(LEAST_SECONDS, SHARE * images / rate)
    return seconds, max(1, min(fitting, int(seconds / 10 * rate / jax.device_count() / TIMES)))
