"""The quick estimate of the likelihood at the end of training."""

import json
from pathlib import Path

from ddpm_jax.runs.report import evaluate, read_records
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import EvaluateRequest
from ddpm_jax.runs.workdir import read

TIMES, EXAMPLES, SAMPLES = 50, 500, 64
"""The numbers of chain terms per example and of samples, and the greatest number of examples."""
LEAST_SECONDS, SHARE = 30.0, 0.1
"""The estimate takes this share of the time that was trained, and at least so many seconds."""


def quick(folder: Path, step: int, reporter: Reporter) -> None:
    """Estimates the bits/dim of a run that is finished after `step` steps, unless ``evaluation.json`` has a record.

    Reports the result and adds it to ``evaluation.json``. It takes about a tenth of the time that was trained, or 30
    seconds: the number of examples, at most 500, follows from that. Every process must call this function.
    """
    records = folder / "evaluation.json"
    if any(record["step"] == step for record in read_records(records)):
        reporter.line(f"{records} has an estimate: ddpm-jax evaluate {folder} uses all terms")
        return
    experiment = read(folder)
    times = TIMES if experiment.process.schedule.num_steps - 1 > TIMES else None
    rate = trained_rate(folder)
    seconds = LEAST_SECONDS if rate is None else max(LEAST_SECONDS, SHARE * step * experiment.batch_size / rate)
    request = EvaluateRequest(
        folder,
        metrics=experiment.metrics,  # type: ignore[arg-type]
        num=EXAMPLES,
        times=times,
        samples=SAMPLES,
        batch_size=_batch_size(seconds, rate),
    )
    evaluate(request, reporter, seconds)
    reporter.line(f"this is a quick estimate: ddpm-jax evaluate {folder} uses all terms of all test examples")


def trained_rate(folder: Path) -> float | None:
    """The number of images that the run trained in a second, by the last row of its log; None without a log."""
    log = folder / "metrics.jsonl"
    rows = [json.loads(row) for row in log.read_text().splitlines()] if log.is_file() else []
    return next((row["images_per_second"] for row in reversed(rows) if row.get("images_per_second")), None)


def _batch_size(seconds: float, rate: float | None) -> int | None:
    """The number of examples in a chunk, such that some ten chunks can be evaluated in this time; None: the default.

    An evaluation of the network is taken to cost as much as its training on an image.
    """
    return None if rate is None else max(1, min(120, int(seconds / 10 * rate / TIMES)))
