"""Samplers at several numbers of steps: the Frechet distance of their samples, and their time."""

import inspect
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import load
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.diffusion.samplers import SAMPLERS
from ddpm_jax.experiment import labels
from ddpm_jax.metrics import frechet_distance
from ddpm_jax.runs.features import PIXELS, Features, vectors
from ddpm_jax.sampling import Run
from ddpm_jax.training.keys import keys

AT_ONCE = 64
"""The number of images that are drawn at a time."""
MOST_REFERENCES = 10_000
"""The most training images, and test images, that are compared with."""


class Point(NamedTuple):
    """A sampler at a number of steps."""

    sampler: str
    steps: int
    calls: int
    """The number of network calls."""
    distance: float
    """The Frechet distance of the features of the samples from those of the training images."""
    seconds: float
    """The seconds of an image, without compilation."""
    eta: float | None = None
    """The noise, for a sampler that has an eta and a study that compares several."""

    @property
    def label(self) -> str:
        """The name of the sampler, with eta if it is given."""
        return self.sampler if self.eta is None else f"{self.sampler}, eta {self.eta:g}"


def counts(steps: Sequence[int], T: int) -> list[int]:
    """The different numbers of steps up to T, in order. Raises ValueError if there are none."""
    if min(steps) > T:
        raise ValueError(f"--steps {min(steps)}: this run has {T} steps")
    return sorted({count for count in steps if count <= T})


def network_calls(sampler: str, steps: int) -> int:
    """The number of network calls that a sampler makes in this number of steps."""
    if sampler in ("heun", "dpm++2s"):
        return 2 * steps - 1
    return steps + 3 * min(steps, 3) if sampler == "pndm" else steps


def sweep(
    run: Run,
    names: Sequence[str],
    steps: Sequence[int],
    spacing: str = "even",
    num: int = 1024,
    seed: int = 0,
    etas: Sequence[float] | None = None,
    features: Features = PIXELS,
) -> list[Point]:
    """Compares samplers at several numbers of steps, those of more than T left out.

    With `etas` each sampler that has an eta is compared at all of them (Song et al. 2021, Table 1, for ddim). Each
    draws the same `num` images of the seed, from the same x_T. Raises ValueError for fewer than 2 images, no number of
    steps up to T, or etas that no sampler has, and that of `sample_fn`.
    """
    if num < 2:
        raise ValueError(f"--num must be at least 2 for a distance, got {num}")
    numbers = counts(steps, run.experiment.process.schedule.num_steps)
    train = _reference(run, "train", features)
    points = []
    for (name, eta), count in itertools.product(_kinds(names, etas), numbers):
        images, seconds = _drawn(run, name, count, spacing, num, seed, eta)
        distance = frechet_distance(vectors(features, images), train)
        points.append(Point(name, count, network_calls(name, count), distance, seconds / num, eta))
    return points


def _kinds(names: Sequence[str], etas: Sequence[float] | None) -> list[tuple[str, float | None]]:
    """The samplers, each with every eta if it has one."""
    noisy = {name for name in names if "eta" in inspect.signature(SAMPLERS[name]).parameters}
    if etas is not None and not noisy:
        raise ValueError(f"--etas: none of the samplers {', '.join(names)} has an eta: add ddim to --samplers")
    return [(name, eta) for name in names for eta in (etas if etas and name in noisy else (None,))]


def between_splits(run: Run, features: Features = PIXELS) -> float:
    """The Frechet distance of the features of the test images from those of the training images."""
    return frechet_distance(*(_reference(run, split, features) for split in ("test", "train")))


def _drawn(
    run: Run, name: str, steps: int, spacing: str, num: int, seed: int, eta: float | None
) -> tuple[np.ndarray, float]:
    """The images, and the seconds that they took after the first batch, which compiles the sampler."""
    sample = run.sampler(steps, eta, name, spacing)
    condition = labels(run.experiment, num + AT_ONCE)

    def batch(first: int) -> np.ndarray:
        some = None if condition is None else condition[first : first + AT_ONCE]
        return np.asarray(sample(keys(seed, AT_ONCE, first), some))

    batch(0)
    start = time.perf_counter()
    images = np.concatenate([batch(first) for first in range(0, num, AT_ONCE)])
    return images[:num], (time.perf_counter() - start) * num / len(images)


def _reference(run: Run, split: str, features: Features) -> np.ndarray:
    source = run.experiment.data.open(split)
    images = load(source, range(min(len(source), MOST_REFERENCES)))["image"]
    return vectors(features, np.asarray(as_picture(jnp.asarray(images), run.experiment.data.levels)))


def table(points: Sequence[Point], test: float) -> str:
    """The points as a Markdown table, with the distance of the test images below."""
    rows = ["| sampler | steps | network calls | Frechet distance | ms an image |", "|---|---|---|---|---|"]
    rows += [f"| {p.label} | {p.steps} | {p.calls} | {p.distance:.3f} | {1000 * p.seconds:.2f} |" for p in points]
    return "\n".join([*rows, f"| test images | | | {test:.3f} | |"])
