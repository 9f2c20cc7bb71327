"""Quality of samples against data: the Parzen-window estimate, and the distance to the nearest training image."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from ddpm_jax.data import Data
from ddpm_jax.data.dataset import WORKERS, in_blocks
from ddpm_jax.experiment import labels
from ddpm_jax.metrics import nearest
from ddpm_jax.metrics.parzen import best_width, log_density
from ddpm_jax.runs.chunks import kept, on_devices
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import check_images, pictures
from ddpm_jax.runs.likelihood import mean_and_error
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.runs.sample import draws
from ddpm_jax.runs.steps import Model, model
from ddpm_jax.sampling import Run

HELD_OUT = 1000
"""The number of training images on which the width of the Parzen window is chosen. The protocol of Goodfellow et al.
2014 uses images that were held out from training; here the run was trained on them."""
AT_ONCE = 100
"""The number of images whose densities under the Parzen window a device computes together."""
MOST_IMAGES, FEW_STEPS = 1000, 50
"""The most samples and test images, and the sampling steps, of `memorisation`."""


def memorisation(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Compares samples with test images by their distance to the nearest training image: see `distances`.

    The samples, at most 1000, are drawn by DDIM in 50 steps where the run previews so, and kept in the folder `keep`.
    Raises ValueError for data that are not images, and for the training split.
    """
    check_images("memorisation", run.experiment.data.image_shape)
    if request.split == "train":
        raise ValueError("--metrics memorisation compares samples with test images: leave out --split train")
    return distances(_fast_samples(run, request, keep / "few", reporter), run.experiment.data, reporter)


def distances(samples: UInt8[np.ndarray, "num *shape"], data: Data, reporter: Reporter) -> dict[str, Any]:
    """The distances of samples, and of at most 1000 test images, to their nearest training image.

    A distance is the root mean squared difference of pixels, on the scale 0..255. A mean distance of samples well below
    that of test images means that samples repeat training images.
    """
    train, test = data.open("train"), data.open("test")
    compared = np.concatenate([samples, pictures(test, range(min(MOST_IMAGES, len(test))), data.levels)])
    blocks = in_blocks(lambda rows: _flat(pictures(train, rows, data.levels)), len(train), WORKERS, reporter.track)
    of_samples, of_test = np.split(nearest(_flat(compared), blocks), [len(samples)])
    figures = {"samples": of_samples.mean(), "closest": of_samples.min(), "test": of_test.mean()}
    return {name: float(value) for name, value in figures.items()} | {"num_samples": len(samples)}


def distances_text(measured: dict[str, Any]) -> str:
    """The result of `distances` as a line."""
    return (
        f"distance to the nearest training image (RMS of pixels, 0-255): {measured['num_samples']} samples "
        f"{measured['samples']:.1f}, the closest {measured['closest']:.1f}; test images {measured['test']:.1f}. "
        "Samples well below test images repeat training images"
    )


def _fast_samples(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> np.ndarray:
    """Samples as `train` draws them for its previews."""
    num, eta, T = (
        min(request.num_samples, MOST_IMAGES),
        run.experiment.preview_eta,
        run.experiment.process.schedule.num_steps,
    )
    steps = None if eta is None else min(FEW_STEPS, T)
    asked = SampleRequest(request.workdir, num=num, seed=request.seed, steps=steps, eta=eta)
    return _drawn(run, asked, keep, reporter, model(run, asked, reporter))


def _flat(images: np.ndarray) -> Array:
    return jnp.asarray(images, jnp.float32).reshape(len(images), -1)


def parzen_window(run: Run, request: EvaluateRequest, keep: Path, reporter: Reporter) -> dict[str, Any]:
    """Estimates the log-likelihood of images scaled to 0..1 by a Parzen window over samples of the run, nats per image.

    The images are those of ``request.split``. The samples and the results are kept in the folder `keep`, and resumed
    from there. Raises ValueError for data that are not images.
    """
    data = run.experiment.data
    check_images("parzen", data.image_shape)
    train, test = data.open("train"), data.open(request.split)
    held, count = range(min(HELD_OUT, len(train))), len(test) if request.num is None else min(request.num, len(test))
    chosen = model(run, request.drawing(), reporter)
    drawn = _drawn(run, request.drawing(), keep / "samples", reporter, chosen)
    centres, held_out = (_flat(each) / 255 for each in (drawn, pictures(train, held, data.levels)))
    width = best_width(centres, held_out)

    def chunk(first: int) -> np.ndarray:
        rows = np.arange(first, first + AT_ONCE) % count
        return np.asarray(_flat(pictures(test, rows.tolist(), data.levels)) / 255)

    def density(shared: tuple[Array, Array], x: Array) -> Array:
        return log_density(x, *shared)

    shared = centres, jnp.float32(width)
    work = on_devices(count, AT_ONCE, density, shared, chunk, lambda nats: {"nats": nats})
    nats = np.concatenate([result["nats"] for result in kept(work, chosen.folder(keep / "parzen"), reporter)])
    return (
        {
            "nats": mean_and_error(np.asarray(nats, np.float64)),
            "width": width,
            "held_out": len(held_out),
            "samples": request.num_samples,
            "num_examples": count,
        }
        | request.sampling()
        | chosen.record()
    )


def _drawn(run: Run, request: SampleRequest, keep: Path, reporter: Reporter, chosen: Model) -> np.ndarray:
    """The samples of the request by the model of its steps, kept in the folder `keep`."""
    work = draws(run, request, labels(run.experiment, request.num), chosen=chosen)
    return np.concatenate([result["images"] for result in kept(work, chosen.folder(keep), reporter)])
