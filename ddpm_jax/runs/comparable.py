"""Results of training that may stand beside those of a paper: which records of evaluation.json, and how measured."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.scores import ENOUGH

Record = Mapping[str, Any]
BIASED = 50_000
"""The number of samples of published FIDs and Inception Scores; fewer bias them."""


class Found(NamedTuple):
    """A result with its protocol."""

    value: float
    protocol: str
    """The standard error and how the number was measured, in words."""
    samples: int = 0
    """The number of samples, of which more are better; 0 where there are none."""


def _bound(figure: str) -> Callable[[Record], Found | None]:
    """The function that finds this figure of the bound, of all terms of all test examples."""

    def find(record: Record) -> Found | None:
        few = {"steps", "spacing", "variance"} & record["protocol"].keys()  # another model than the run's T steps
        if "bpd" not in record or not _is_whole(record) or few or record["protocol"]["times"] is not None:
            return None
        (mean, error), bound = record["bpd"][figure], record["bpd"]
        words = f"{_error(error)}, {bound['num_examples']} test examples, all {bound['times']} chain terms"
        return Found(mean, words)

    return find


def _nll(record: Record) -> Found | None:
    """The negative log-likelihood of all test examples under the probability-flow ODE."""
    if "nll" not in record or not _is_whole(record):
        return None
    (mean, error), protocol = record["nll"]["bits_per_dim"], record["protocol"]
    words = f"{_error(error)}, probability-flow ODE, {record['nll']['num_examples']} test examples"
    return Found(mean, f"{words}, dequantization {protocol['dequantization']}, tolerance {protocol['tolerance']:g}")


def _fid(record: Record) -> Found | None:
    """The Frechet distance of Inception features from the whole training split."""
    if not _has_inception("fid", record):
        return None
    protocol = record["fid"]["protocol"]
    asked = record["protocol"]
    if protocol.get("split") != "train" or asked["num"] is not None or asked.get("reference") is not None:
        return None
    value, error = record["fid"]["fid"]
    return _of_samples(value, f"{_error(error)}, against all {protocol['reference']:,} training images", record["fid"])


def _inception_score(record: Record) -> Found | None:
    """The mean Inception Score over ten splits."""
    if not _has_inception("is", record):
        return None
    (mean, spread), (_, error) = record["is"]["of_splits"], record["is"]["of_all"]
    return _of_samples(mean, f"{_error(error)}, standard deviation {spread:.4f} over 10 splits", record["is"])


def _has_inception(name: str, record: Record) -> bool:
    """Whether the metric was measured with the features of published numbers, on enough samples without guidance."""
    if name not in record:
        return False
    protocol, drawn = record[name]["protocol"], record[name]["drawn"]
    usual = drawn.get("clip", True) and drawn.get("guidance") in (None, 1)
    return protocol["features"] == "inception" and protocol["samples"] >= ENOUGH and usual


def _of_samples(value: float, words: str, measured: Mapping[str, Any]) -> Found:
    """The result with how its samples were drawn."""
    samples, drawn = measured["protocol"]["samples"], measured["drawn"]
    few = f" (biased: published numbers are of {BIASED:,})" if samples < BIASED else ""
    options = "".join(f", {name} {drawn[name]}" for name in ("eta", "variance") if drawn.get(name) is not None)
    spacing = "" if drawn["spacing"] == "even" else f" at {drawn['spacing']} times"
    words += f", {samples:,} samples{few} by {drawn['sampler']} in {drawn['steps']} steps{spacing}{options}"
    return Found(value, f"{words}, Inception features", samples)


def _is_whole(record: Record) -> bool:
    """Whether all examples of the test split were measured, as the run clips."""
    protocol = record["protocol"]
    return protocol["split"] == "test" and protocol["num"] is None and protocol.get("clip", True)


def _has_own_samples(record: Record) -> bool:
    """Whether the samples were those of the run's own sampler with all its steps."""
    return not {"sampler", "steps", "spacing", "variance", "eta"} & record["protocol"].keys()


def _error(error: float | None) -> str:
    return "no standard error" if error is None else f"+- {error:.4f}"


MEASURED: Mapping[str, tuple[Callable[[Record], Found | None], str]] = {
    "bits/dim": (_bound("total"), "ddpm-jax evaluate"),
    "K": (_bound("K"), "ddpm-jax evaluate --metrics K"),
    "K - L_null": (_bound("K_over_null"), "ddpm-jax evaluate --metrics K"),
    "NLL": (_nll, "ddpm-jax evaluate --metrics nll"),
    "FID": (_fid, "ddpm-jax evaluate --metrics fid --split train --samples 50000"),
    "IS": (_inception_score, "ddpm-jax evaluate --metrics is --samples 50000"),
}
"""Results of training: the function that finds one in a record that is comparable, and the command that measures it."""


def newest(what: str, folder: Path | None) -> tuple[float | None, str]:
    """(value, protocol) of the comparable measurement in the workdir; (None, what to do) if there is none.

    It is that of the newest step: there one with the run's own sampler and steps, and of these that of most samples.
    """
    path = None if folder is None else folder / "evaluation.json"
    if path is None or not path.exists():
        return None, "not measured"
    find, command = MEASURED[what]
    found = [(record, result) for record in read_records(path) if (result := find(record)) is not None]
    if not found:
        return None, f"not measured comparably: run {command}"
    record, result = _preferred(found)
    return result.value, f"{result.protocol}, {record['weights']} weights, step {record['step']}"


def _preferred(found: Sequence[tuple[Record, Found]]) -> tuple[Record, Found]:
    return max(found, key=lambda pair: (pair[0]["step"], _has_own_samples(pair[0]), pair[1].samples))
