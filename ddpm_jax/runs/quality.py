"""Quality of samples against data: the Parzen-window estimate, and the distance to the nearest training image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax.data import load
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


BLOCK, MOST_IMAGES, FEW_STEPS = 1000, 1000, 50
"""Training images in a block, the most samples and test images, and the sampling steps, of `memorisation`."""


def memorisation(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Compares samples with test images by their distance to the nearest training image.

    A distance is the root mean squared difference of pixels, on the scale 0..255. A ratio, of the mean distance of
    samples to that of test images, well below 1 means that samples repeat training images. The samples, at most 1000,
    are drawn by DDIM in 50 steps where the run previews so. The ratio is None for a split without images. Raises
    ValueError for data that are not images.
    """
    data = run.experiment.data
    _check_images("memorisation", data.image_shape)
    train, num, T = data.open("train"), min(request.samples, MOST_IMAGES), run.experiment.process.schedule.num_steps
    fast = {} if run.experiment.preview_eta is None else {"steps": min(FEW_STEPS, T), "eta": run.experiment.preview_eta}
    keep.mkdir(exist_ok=True)
    asked = SampleRequest(request.workdir, num=num, seed=request.seed, **fast)
    samples = np.concatenate(list(kept(draws(run, asked, labels(run.experiment, num)), keep, reporter)))

    def distance(images: np.ndarray) -> np.ndarray:
        blocks = (range(first, min(first + BLOCK, len(train))) for first in range(0, len(train), BLOCK))
        return nearest(_flat(images), (_flat(_pictures(train, rows, data.levels)) for rows in blocks))

    of_samples, of_test = distance(samples), None
    try:
        test = data.open(request.split)
        of_test = distance(_pictures(test, range(min(MOST_IMAGES, len(test))), data.levels))
    except (FileNotFoundError, ValueError):
        reporter.line(f"there is no {request.split} split to compare the distances with")
    measured = {"samples": float(of_samples.mean()), "closest": float(of_samples.min()), "num_samples": num}
    return measured | {"test": None if of_test is None else float(of_test.mean())}


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
    keep.mkdir(exist_ok=True)
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
