"""The error of reconstruction: images that DDIM encodes to x_T and decodes again (Song et al. 2021, Table 2)."""

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from ddpm_jax.diffusion import samplers
from ddpm_jax.experiment import Batch, Experiment, Params, network_fn, unpack
from ddpm_jax.runs.chunks import kept
from ddpm_jax.runs.likelihood import Estimate, mean_and_error, over_examples
from ddpm_jax.runs.report import fitting_batch
from ddpm_jax.sampling import Run
from ddpm_jax.studies.sweep import counts

PAPER = {10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001}
"""Song et al. 2021, Table 2: the error for CIFAR-10 by the number of steps."""


class Point(NamedTuple):
    """The error of images that were encoded and decoded in this number of steps each."""

    steps: int
    error: Estimate
    """The mean squared error per dimension, in pixels of 0..1: mean and standard error over the images."""


class Walks(NamedTuple):
    """The times of every number of steps, as arrays of one length: those beyond ``steps[i] + 1`` are unused."""

    down: Num[np.ndarray, "counts visits"]
    up: Num[np.ndarray, "counts visits"]
    steps: np.ndarray


def reconstruct(
    run: Run, steps: Sequence[int], spacing: str = "even", num: int | None = None, seed: int = 0
) -> list[Point]:
    """The errors of the first `num` test images, by default all, at these numbers of steps, without those above T.

    An image is encoded by `samplers.encoder` and decoded by `samplers.ddim`, both without clipping, and with its label
    if the run is class-conditional. All numbers of steps are one program. Raises ValueError for no number of steps up
    to T, a process that is not Gaussian, or data that are not pixels.
    """
    run.experiment.process.require_gaussian("reconstruct")
    if run.experiment.encoding.unit is None:
        raise ValueError("reconstruct compares pixels, and the data of this run are not pixels")
    source, walks = run.experiment.data.open("test"), _walks(run, steps, spacing)
    num = len(source) if num is None else min(num, len(source))

    def errors(params: Params, batch_keys: Array, batch: Batch) -> Float[Array, "batch counts"]:
        return _errors(run.experiment, walks, params, batch_keys, batch)

    size = min(num, fitting_batch(run.experiment.data.image_shape))
    work = over_examples(run, source, num, size, seed, errors, lambda found: {"errors": found})
    with TemporaryDirectory() as folder:
        found = np.concatenate([result["errors"] for result in kept(work, Path(folder))])
    return [Point(int(count), mean_and_error(column)) for count, column in zip(walks.steps, found.T, strict=True)]


def _walks(run: Run, steps: Sequence[int], spacing: str) -> Walks:
    schedule = run.schedule
    numbers = counts(steps, schedule.num_steps)
    times = [samplers.SPACINGS[spacing](schedule, count) for count in numbers]

    def padded(rows: list[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(row, (0, max(numbers) + 1 - len(row))) for row in rows])

    return Walks(padded(times), padded([row[::-1] for row in times]), np.array(numbers, np.int32))


def _errors(
    experiment: Experiment, walks: Walks, params: Params, batch_keys: Array, batch: Batch
) -> Float[Array, "batch counts"]:
    """The squared error of each image, a mean over its pixels of 0..1, for each of the walks."""
    made, weights = unpack(experiment, params)
    model = made.process, made.parameterization.unclipped(), network_fn(made, weights), batch.get("label")
    up, down = samplers.encoder(*model), samplers.ddim(*model)
    x_0 = made.encoding.encode(batch_keys, batch["image"])
    unit = (made.encoding.unit or math.nan) / 255

    def error(walk: Walks) -> Float[Array, " batch"]:
        x_T, _ = samplers.stretch(batch_keys, up, x_0, up.init(x_0), walk.up, 0, walk.steps)
        again, _ = samplers.stretch(batch_keys, down, x_T, down.init(x_T), walk.down, 0, walk.steps)
        return jnp.square(unit * (again - x_0)).mean(axis=(1, 2, 3))

    return jax.lax.map(error, jax.tree.map(jnp.asarray, walks)).T


def of_rounding(levels: int) -> float:
    """The mean squared error, in pixels of 0..1, of rounding to this number of levels: 1 / (12 (levels - 1)^2)."""
    return 1 / (12 * (levels - 1) ** 2)


def table(points: Sequence[Point]) -> str:
    """The errors as a Markdown table, beside those of the paper for CIFAR-10."""
    rows = ["| steps | error | standard error | CIFAR-10, Song et al. 2021 |", "|---|---|---|---|"]
    for steps, (mean, error) in points:
        spread = "" if error is None else f"{error:.2g}"
        rows.append(f"| {steps} | {mean:.3g} | {spread} | {PAPER.get(steps, '')} |")
    return "\n".join(rows)


def curves(points: Sequence[Point]) -> dict[str, list[tuple[Any, float]]]:
    """The errors against the number of steps, of the run and of the paper."""
    paper = [(float(steps), error) for steps, error in PAPER.items()]
    return {"this run": [(float(steps), error) for steps, (error, _) in points], "CIFAR-10, Song et al. 2021": paper}
