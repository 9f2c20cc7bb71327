"""Runs of classifiers of noisy images: their accuracy, and their activations as features of images."""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, UInt8

from ddpm_jax.data.encodings import to_float
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.parameterizations.classes import NO_MODEL
from ddpm_jax.experiment import Batch, Experiment, Params, network_fn
from ddpm_jax.networks import FEATURES
from ddpm_jax.runs import workdir
from ddpm_jax.runs.chunks import Result, Work
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.likelihood import mean_and_error, over_examples
from ddpm_jax.sampling import Run
from ddpm_jax.training.digests import digest

CLEAN = 0
"""The time of images without noise, which the classifier is given at t = 1."""
LEVELS = (0.05, 0.1, 0.25, 0.5)
"""The times at which accuracy is measured, as shares of T, besides `CLEAN`."""


class Activations(NamedTuple):
    """What a classifier computes from clean images."""

    pool: Float[Array, "batch dims"]
    """The input of its last layer."""
    logits: Float[Array, "batch classes"]


def times(num_steps: int) -> list[int]:
    """The times at which accuracy is measured: `CLEAN`, and those of `LEVELS`."""
    return sorted({CLEAN, *(max(1, round(share * num_steps)) for share in LEVELS)})


def accuracy_work(run: Run, source: Sequence, num: int, size: int, seed: int) -> Work:
    """Right answers and cross-entropies of the first `num` examples, as {"right", "nats"}, [chunk, times]."""
    experiment, schedule = run.experiment, run.experiment.process.schedule

    def one(params: Params, keys: Array, batch: Batch) -> tuple[Array, Array]:
        network = network_fn(experiment, params)
        x_0 = experiment.encoding.encode(fold(keys, schedule.num_steps + 2), batch["image"])

        def at(t: int) -> Array:
            x_t = x_0 if t == CLEAN else experiment.process.marginal(x_0, t).sample(fold(keys, t))
            return jax.nn.log_softmax(network(x_t, max(t, 1), None))

        logs, label = jnp.stack([at(t) for t in times(schedule.num_steps)], axis=1), batch["label"]
        nats = -jnp.take_along_axis(logs, label[:, None, None], axis=2)[:, :, 0]
        return logs.argmax(axis=2) == label[:, None], nats

    def result(output: tuple[np.ndarray, np.ndarray]) -> Result:
        return {"right": output[0], "nats": output[1]}

    return over_examples(run, source, num, size, seed, one, result)


def summarize(run: Run, results: Sequence[Result]) -> dict[str, Any]:
    """The record of a measurement: accuracy and cross-entropy with their errors, of clean images and by time."""
    right, nats = (np.concatenate([result[name] for result in results]) for name in ("right", "nats"))
    rows = {
        t: {"accuracy": mean_and_error(right[:, n]), "nats": mean_and_error(nats[:, n])}
        for n, t in enumerate(times(run.experiment.process.schedule.num_steps))
    }
    noisy = {str(t): row for t, row in rows.items() if t != CLEAN}
    return {**rows[CLEAN], "noisy": noisy, "num_examples": len(right)}


def table(run: Run, record: dict[str, Any], split: str) -> str:
    """The record as a table."""
    schedule = run.experiment.process.schedule
    lines = [f"accuracy of the classifier and cross-entropy in nats: {record['num_examples']:,} {split} examples"]
    lines += ["     t  sigma_t / alpha_t      accuracy          nats"]
    for t, row in {CLEAN: record, **{int(t): row for t, row in record["noisy"].items()}}.items():
        level = float(np.sqrt(schedule.one_minus_alpha_bar[t] / schedule.alpha_bar[t]))
        (mean, error), (nats, _) = row["accuracy"], row["nats"]
        spread = "" if error is None else f" +- {error:.4f}"
        lines.append(f"{'clean' if t == CLEAN else t:>6} {level:>18.3f}  {mean:.4f}{spread:10}  {nats:>8.4f}")
    return "\n".join(lines)


def check_metrics(run: Run, request: EvaluateRequest) -> None:
    """Raises ValueError for metrics of samples of a classifier, or the accuracy of another run."""
    for name in request.metrics or ():
        if name == "accuracy" and not run.experiment.is_classifier:
            raise ValueError("--metrics accuracy: this run is no classifier: choose another metric")
        if name != "accuracy" and run.experiment.is_classifier:
            raise ValueError(f"--metrics {name}: {NO_MODEL}; for a classifier choose --metrics accuracy")


class Loaded(NamedTuple):
    """A classifier as a feature function."""

    extractor: Partial
    """``uint8 images [batch, height, width, channels]`` -> `Activations`."""
    protocol: dict[str, Any]
    """What identifies it, whatever folder it lies in."""


def load(folder: Path, option: str) -> Run:
    """The averaged parameters of the classifier in this workdir, which the option names.

    Raises ValueError if the run there is no classifier, FileNotFoundError if the folder has no run.
    """
    workdir.check_workdir(folder)
    run = workdir.load(folder)
    if not run.experiment.is_classifier:
        raise ValueError(f"{option} {folder}: the run there is no classifier: train one with ddpm-jax train classifier")
    return run


def features(folder: Path, image_shape: Sequence[int]) -> Loaded:
    """The classifier in this workdir as a feature function.

    Raises ValueError as `load` does, and if the classifier cannot have such images, or has no features.
    """
    workdir.check_workdir(folder)
    saved = (folder / "checkpoints").stat().st_mtime_ns if (folder / "checkpoints").is_dir() else 0
    return _features(folder, saved, tuple(image_shape))


@lru_cache(maxsize=1)  # several metrics of a command need it
def _features(folder: Path, saved: int, image_shape: tuple[int, ...]) -> Loaded:
    """As `features`; `saved` is when the run last saved its parameters."""
    run, record = load(folder, "--features"), workdir.read_record(folder)
    _check(folder, run, image_shape)
    protocol = {
        "features": "classifier",
        "classifier": Path(record["experiment"]).stem,
        "classifier_data": run.experiment.data.name,
        "classifier_step": run.step,
        "classifier_digest": digest(run.params),
    }
    return Loaded(Partial(partial(_activations, run.experiment), run.params), protocol)


def _check(folder: Path, run: Run, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError if the classifier cannot have such images, or has no features."""
    theirs = tuple(run.experiment.data.image_shape)
    if theirs != image_shape:
        raise ValueError(f"--features {folder}: the classifier there is for images of {theirs}, not {image_shape}")
    if run.experiment.encoding.unit != 127.5:
        raise ValueError(f"--features {folder}: the classifier there does not have its levels evenly spaced in [-1, 1]")
    try:
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
        jax.eval_shape(partial(_activations, run.experiment), run.params, images)
    except KeyError:
        what = f"the network there sows no {FEATURES!r}, as NoisyClassifier does"
        raise ValueError(f"--features {folder}: {what}") from None


def _activations(experiment: Experiment, params: Params, images: UInt8[Array, "batch *shape"]) -> Activations:
    x_0 = to_float(images, 256)
    index = jnp.zeros(len(images), jnp.int32)  # of t = 1, as in training
    logits, sown = experiment.network.apply({"params": params}, x_0, index, None, mutable=["intermediates"])
    return Activations(sown["intermediates"][FEATURES][0], logits)  # type: ignore[index]
