"""The subject of a tour: images and a model of them, from a data set or from a trained run."""

import html
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ddpm_jax.data import Data, dead_leaves, digits, load, mnist_5000, tfds_images
from ddpm_jax.data.encodings import Encoding, evenly
from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.diffusion.parameterizations.classes import NO_MODEL
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler
from ddpm_jax.experiment import Experiment, labels, network_fn, unpack
from ddpm_jax.runs import models, workdir
from ddpm_jax.sampling import sampler_fn
from ddpm_jax.training.keys import EVALUATE, keys

DATA: Mapping[str, Callable[[], Data]] = {
    "digits": digits,
    "mnist_5000": mnist_5000,
    "dead_leaves": dead_leaves,
    "mnist": partial(tfds_images, "mnist", (28, 28, 1)),
    "fashion_mnist": partial(tfds_images, "fashion_mnist", (28, 28, 1)),
    "cifar10": partial(tfds_images, "cifar10", (32, 32, 3)),
}
"""The data sets that a tour can show without a run."""
MAX_IMAGES = 2000
"""The largest number of images of each split that a tour uses."""
NUM_SAMPLES = 2
"""The number of samples whose reverse chain is shown."""


class Subject(NamedTuple):
    """Images, and a model of them."""

    train: Float[Array, "num height width channels"]
    """x_0 of training images."""
    test: Float[Array, "test height width channels"]
    """x_0 of test images."""
    encoding: Encoding
    process: Process
    parameterization: Parameterization
    network: Network
    sampler: Sampler
    """Draws `NUM_SAMPLES` samples, of the classes `sample_labels` if the network is conditional."""
    description: str
    """A noun phrase that describes the model, as HTML."""
    train_labels: Array | None = None
    """The classes of the training images; None for an unconditional network."""
    test_labels: Array | None = None
    sample_labels: Array | None = None
    """The classes of the samples, int32 [NUM_SAMPLES]."""


def subject_of(source: str, optimal: bool = False) -> Subject:
    """The subject of a tour of `source`: the folder of a run, the name of a shipped model, or a name in `DATA`.

    With `optimal` it must be a name in `DATA`. Raises ValueError if `source` is none of these, or a run whose data are
    not images.
    """
    if models.found(Path(source)).is_dir() and not optimal:
        return _of_run(Path(source))
    if source not in DATA:
        problem = f"--optimal: {source} is not" if optimal else f"{source} is neither the folder of a run nor"
        raise ValueError(f"{problem} one of {', '.join(DATA)}")
    return _of_data(DATA[source]())


def _of_data(data: Data) -> Subject:
    """The images of a data set, with the optimal model of its training images."""
    levels = data.levels or 256
    encoding, process = evenly(levels), gaussian.process(schedules.linear(1000), gaussian.discretized(levels))
    train, test = (_encoded(encoding, _stored(data, split)["image"]) for split in ("train", "test"))
    parameterization, network = parameterizations.x0(process), optimal_network(process, train)
    return Subject(
        train=train,
        test=test,
        encoding=encoding,
        process=process,
        parameterization=parameterization,
        network=network,
        sampler=samplers.ddpm(process, parameterization, network),
        description=f"the optimal model of {len(train)} training images, which is computed without a network and "
        "reproduces training images only (<code>ddpm-jax tour DIR</code>, with the folder of a run, shows a trained "
        "network)",
    )


def _of_run(folder: Path) -> Subject:
    """The images and the trained network of a run."""
    run = workdir.load(folder)
    experiment, weights = unpack(run.experiment, run.params)
    if experiment.is_classifier:
        raise ValueError(NO_MODEL)
    if len(experiment.data.image_shape) != 3:
        raise ValueError(
            f"{folder}: the tour needs images, and the data of this run have shape {experiment.data.image_shape}"
        )
    train, test = (_stored(experiment.data, split) for split in ("train", "test"))
    sample_labels = _sample_labels(experiment)
    return Subject(
        train=_encoded(experiment.encoding, train["image"]),
        test=_encoded(experiment.encoding, test["image"]),
        encoding=experiment.encoding,
        process=experiment.process,
        parameterization=experiment.parameterization,
        network=network_fn(experiment, weights),
        sampler=sampler_fn(run.experiment)(run.params, sample_labels),
        description=f"the network of the run <code>{html.escape(str(folder))}</code> after {run.step} training steps",
        train_labels=None if sample_labels is None else jnp.asarray(train["label"]),
        test_labels=None if sample_labels is None else jnp.asarray(test["label"]),
        sample_labels=sample_labels,
    )


def _stored(data: Data, split: str) -> dict[str, np.ndarray]:
    """The first examples of the split, at most `MAX_IMAGES`, as stored."""
    source = data.open(split)
    return load(source, range(min(MAX_IMAGES, len(source))))


def _encoded(encoding: Encoding, images: np.ndarray) -> Array:
    """x_0 of stored images."""
    return encoding.encode(keys(0, len(images), purpose=EVALUATE), jnp.asarray(images))


def _sample_labels(experiment: Experiment) -> Array | None:
    classes = labels(experiment, NUM_SAMPLES)
    return None if classes is None else jnp.asarray(classes)


def optimal_network(process: Process, x_0: Float[Array, "num *shape"]) -> Network:
    """The network that minimizes the training loss on these examples: its output is E[x_0 | x_t].

        E[x_0 | x_t] = sum_i w_i x_0_i,    w_i proportional to q(x_t | x_0_i)

    Each example has the same probability. For a Gaussian process and the parameterization `x0`.
    """
    flat = x_0.reshape(len(x_0), -1)
    squares = jnp.square(flat).sum(axis=1)[None] / 2

    def network(x_t, t, condition):
        alpha_bar, one_minus = process.schedule.at(t, 2)
        scores = jnp.sqrt(alpha_bar) * x_t.reshape(len(x_t), -1) @ flat.T - alpha_bar * squares
        return (jax.nn.softmax(scores / one_minus) @ flat).reshape(x_t.shape)

    return network
