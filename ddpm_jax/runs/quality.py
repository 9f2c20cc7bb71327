"""Quality of samples against data: the Parzen-window estimate, and the distance to the nearest training image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax.data import load
from ddpm_jax.data.dataset import WORKERS, in_blocks
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.experiment import Run, labels
from ddpm_jax.metrics import nearest, parzen
from ddpm_jax.runs.outputs import kept
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import EvaluateRequest, SampleRequest
from ddpm_jax.runs.sample import draws

HELD_OUT = 1000
"""The number of training images on which the width of the Parzen window is chosen. The protocol of Goodfellow et al.
2014 uses images that were held out from training; here the run was trained on them."""
MOST_IMAGES, FEW_STEPS = 1000, 50
"""The most samples and test images, and the sampling steps, of `memorisation`."""


def memorisation(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Compares samples with test images by their distance to the nearest training image.

    A distance is the root mean squared difference of pixels, on the scale 0..255. A mean distance of samples well below
    that of test images means that samples repeat training images. The samples, at most 1000, are drawn by DDIM in 50
    steps where the run previews so, and kept in the folder `keep`. Raises ValueError for data that are not images, and
    for the training split.
    """
    data, levels = run.experiment.data, run.experiment.data.levels
    _check_images("memorisation", data.image_shape)
    if request.split == "train":
        raise ValueError("--metrics memorisation compares samples with test images: leave out --split train")
    train, test = data.open("train"), data.open(request.split)
    samples = _fast_samples(run, request, keep, reporter)
    compared = np.concatenate([samples, _pictures(test, range(min(MOST_IMAGES, len(test))), levels)])
    blocks = in_blocks(lambda rows: _flat(_pictures(train, rows, levels)), len(train), WORKERS, reporter.track)
    of_samples, of_test = np.split(nearest(_flat(compared), blocks), [len(samples)])
    figures = {"samples": of_samples.mean(), "closest": of_samples.min(), "test": of_test.mean()}
    return {name: float(value) for name, value in figures.items()} | {"num_samples": len(samples)}


def _fast_samples(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> np.ndarray:
    """Samples as `train` draws them for its previews."""
    num, eta, T = (
        min(request.samples, MOST_IMAGES),
        run.experiment.preview_eta,
        run.experiment.process.schedule.num_steps,
    )
    steps = None if eta is None else min(FEW_STEPS, T)
    asked = SampleRequest(request.workdir, num=num, seed=request.seed, steps=steps, eta=eta)
    return np.concatenate(list(kept(draws(run, asked, labels(run.experiment, num)), keep, reporter)))


def _check_images(metric: str, image_shape: tuple[int, ...]) -> None:
    if len(image_shape) != 3:
        raise ValueError(f"--metrics {metric} is for images, not data of shape {image_shape}: choose another metric")


def _pictures(source: Sequence, rows: Sequence[int], levels: int | None) -> np.ndarray:
    return np.asarray(as_picture(jnp.asarray(load(source, rows)["image"]), levels))


def _flat(images: np.ndarray) -> Array:
    return jnp.asarray(images, jnp.float32).reshape(len(images), -1)


def parzen_window(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Estimates the log-likelihood of images scaled to 0..1 by a Parzen window over samples of the run, nats per image.

    The images are those of ``request.split``. The samples are kept in the folder `keep`; samples that lie there are not
    drawn again. Raises ValueError for data that are not images.
    """
    data = run.experiment.data
    _check_images("parzen", data.image_shape)
    train, test = data.open("train"), data.open(request.split)
    held, count = range(min(HELD_OUT, len(train))), len(test) if request.num is None else min(request.num, len(test))
    samples = SampleRequest(request.workdir, num=request.samples, seed=request.seed)
    drawn = np.concatenate(list(kept(draws(run, samples, labels(run.experiment, request.samples)), keep, reporter)))
    images = (drawn, _pictures(train, held, data.levels), _pictures(test, range(count), data.levels))
    centres, held_out, tested = (_flat(each) / 255 for each in images)
    mean, error, width = parzen(centres, held_out, tested)
    return {
        "nats": (mean, error),
        "width": width,
        "held_out": len(held_out),
        "samples": request.samples,
        "num_examples": count,
    }
