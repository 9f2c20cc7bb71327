"""Quality of samples against data: the Parzen-window estimate."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import load
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.experiment import Run, labels
from ddpm_jax.metrics import parzen
from ddpm_jax.runs.outputs import kept
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import EvaluateRequest, SampleRequest
from ddpm_jax.runs.sample import draws

HELD_OUT = 1000
"""The number of training images on which the width of the Parzen window is chosen. The protocol of Goodfellow et al.
2014 uses images that were held out from training; here the run was trained on them."""


def parzen_window(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Estimates the log-likelihood of images scaled to 0..1 by a Parzen window over samples of the run, nats per image.

    The images are those of ``request.split``. The samples are kept in the folder `keep`; samples that lie there are not
    drawn again. Raises ValueError for data that are not images.
    """
    data = run.experiment.data
    if len(data.image_shape) != 3:
        raise ValueError(f"--metrics parzen is for images, not data of shape {data.image_shape}: choose another metric")
    train, test = data.open("train"), data.open(request.split)
    count = len(test) if request.num is None else min(request.num, len(test))
    stored = [load(train, range(min(HELD_OUT, len(train))))["image"], load(test, range(count))["image"]]
    samples = SampleRequest(request.workdir, num=request.samples, seed=request.seed)
    keep.mkdir(exist_ok=True)
    drawn = np.concatenate(list(kept(draws(run, samples, labels(run.experiment, request.samples)), keep, reporter)))
    images = [drawn, *(as_picture(jnp.asarray(each), data.levels) for each in stored)]
    centres, held_out, tested = (jnp.asarray(each, jnp.float32).reshape(len(each), -1) / 255 for each in images)
    mean, error, width = parzen(centres, held_out, tested)
    return {
        "nats": (mean, error),
        "width": width,
        "held_out": len(held_out),
        "samples": request.samples,
        "num_examples": count,
    }
