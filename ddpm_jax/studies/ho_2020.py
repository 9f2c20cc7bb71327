"""The studies of Ho et al. 2020: progressive generation, shared x_t, interpolation, nearest neighbours.

Each is a function of a trained run that returns rows of images, uint8 [rows, columns, height, width, channels]. The
sampler is the experiment's own, with all T steps.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ddpm_jax.data import load
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.diffusion import samplers
from ddpm_jax.experiment import labels, network_fn, unpack
from ddpm_jax.sampling import Run, prior_sample, sample_fn, sampler_fn
from ddpm_jax.studies.walk import check_times, encoding_keys, noise_keys, walk
from ddpm_jax.training.keys import keys

Images = UInt8[np.ndarray, "num height width channels"]
Rows = UInt8[np.ndarray, "rows columns height width channels"]

CHUNK = 256
"""The number of training images in memory at a time when neighbours are searched."""


def progressive(run: Run, num: int = 8, seed: int = 0, frames: int = 11) -> Rows:
    """Progressive generation (Ho et al. 2020, Figure 6): a row for each sample, with estimates of x_0 as t falls.

    The first columns are the estimates of x_0 from x_t at t evenly spaced from T down; the last is the sample. There
    are `frames` columns, at most T + 1. Row i is image i of the seed.
    """
    experiment = run.experiment
    T = experiment.process.schedule.num_steps
    times, frames = samplers.times(T, T), min(frames, T + 1)
    visited = jnp.asarray(samplers.frame_times(times, frames)[:-1])

    @jax.jit
    def rows(params, batch_keys, condition):
        sampler = sampler_fn(experiment)(params, condition)
        x_0, path = samplers.sample_path(batch_keys, sampler, prior_sample(experiment, batch_keys), times, frames)
        made, weights = unpack(experiment, params)
        network = network_fn(made, weights)

        def estimate(at):
            x_t, t = at
            return made.parameterization.x_0(network(x_t, t, condition), x_t, t)

        estimates = jax.lax.map(estimate, (path[:-1], visited))
        return experiment.encoding.decode(jnp.concatenate([estimates, x_0[None]]).swapaxes(0, 1))

    return np.asarray(rows(run.params, keys(seed, num), labels(experiment, num)))


def shared(run: Run, num: int = 8, seed: int = 0, times: Sequence[int] | None = None) -> Rows:
    """Samples that share x_t (Ho et al. 2020, Figure 7): a row for each t, with x_t first and then its samples.

    x_t is a state of the walk to image 0 of the seed, so the first sample of each row is that image. From t down each
    sample has its own noise. All samples have the class of image 0. Default times: T, 3T/4, T/2, T/4.

    Raises ValueError for a time outside 1..T.
    """
    experiment, parts = run.experiment, walk(run)
    T = experiment.process.schedule.num_steps
    times = times or sorted({max(1, T * n // 4) for n in (1, 2, 3, 4)}, reverse=True)
    check_times(run, times)
    label = labels(experiment, 1)
    label = None if label is None else np.repeat(label, num)
    same = jnp.repeat(keys(seed, 1), num)
    x_T = parts.start(prior_sample(experiment, same), label)
    rows = []
    for t in times:
        state = parts.advance(same, x_T, T, t, label)  # `num` equal walks, so the sampler's memory fits all samples
        x_0, _ = parts.advance(keys(seed, num), state, t, 0, label)
        rows.append(experiment.encoding.decode(jnp.concatenate([state[0][:1], x_0])))
    return np.stack(rows)


def interpolate(
    run: Run,
    sources: UInt8[np.ndarray, "2 height width channels"],
    times: Sequence[int],
    weights: Sequence[float],
    seed: int = 0,
) -> Rows:
    """Interpolations between two images (Ho et al. 2020, Figures 8 and 9): a row for each t, a column for each weight.

        x_t = (1 - weight) x_t of the first source + weight x_t of the second,    then sampled from t down to 0

    The sources are at the ends of each row. Each source has its own noise. This noise and the noise of the sampler are
    the same for all rows and weights. At t = 0 the pixels are interpolated; the larger t is, the coarser are the
    features that vary. A class-conditional network is evaluated without a class.

    Raises ValueError for a time outside 0..T, and for a network that was trained with classes only.
    """
    check_times(run, times, least=0)
    check_unconditional(run)
    experiment, _ = unpack(run.experiment, run.params)
    parts, batch_keys = walk(run), keys(seed, 2)
    x_0 = experiment.encoding.encode(encoding_keys(experiment, batch_keys), jnp.asarray(sources))
    noise = experiment.process.marginal(x_0, 1).noise(noise_keys(experiment, batch_keys))
    share = jnp.asarray(weights, jnp.float32).reshape((-1,) + (1,) * (x_0.ndim - 1))
    ends, same = experiment.encoding.decode(x_0), jnp.repeat(keys(seed, 1), len(weights))
    rows = []
    for t in times:
        x_t = x_0 if t == 0 else experiment.process.marginal(x_0, t).push(noise)
        mixed = (1 - share) * x_t[:1] + share * x_t[1:]
        between, _ = parts.advance(same, parts.start(mixed, None), t, 0, None)
        rows.append(jnp.concatenate([ends[:1], experiment.encoding.decode(between), ends[1:]]))
    return np.stack(rows)


def check_unconditional(run: Run) -> None:
    """Raises ValueError if the network cannot sample without a class."""
    if run.experiment.num_classes is not None and run.experiment.label_dropout == 0:
        raise ValueError(
            "interpolate samples without a class, and this network was trained with classes only (label_dropout 0): "
            "train it with label_dropout above 0, such as 0.1, or choose another study"
        )


def neighbours(run: Run, num: int = 8, seed: int = 0, nearest: int = 7) -> Rows:
    """Samples and their nearest training images (Ho et al. 2020, Figures 12 and 15): a row for each sample.

    The sample is first, then its `nearest` training images by Euclidean distance between pixels, nearest first. Row i
    is image i of the seed.
    """
    experiment, train = run.experiment, run.experiment.data.open("train")
    samples = np.asarray(sample_fn(experiment)(run.params, keys(seed, num), labels(experiment, num)))
    chunks = (range(first, min(first + CHUNK, len(train))) for first in range(0, len(train), CHUNK))
    levels = experiment.data.levels
    all_distances = np.concatenate([distances(samples, _images(train, rows, levels)) for rows in chunks], axis=1)
    order = np.argsort(all_distances, axis=1, kind="stable")[:, :nearest]
    found = [_images(train, rows.tolist(), levels) for rows in order]
    return np.stack([np.concatenate([image[None], others]) for image, others in zip(samples, found, strict=True)])


def _images(source: Sequence, rows: Sequence[int], levels: int | None) -> Images:
    """The images of the source at these rows, with their levels scaled to 0..255."""
    return np.asarray(as_picture(jnp.asarray(load(source, rows)["image"]), levels))


def distances(
    images: Images, others: UInt8[np.ndarray, "others height width channels"]
) -> Float[np.ndarray, "num others"]:
    """The squared Euclidean distance between each image and each of the others, in squared levels of 0..255."""
    flat = others.reshape(len(others), -1).astype(np.float32)
    return np.stack([np.square(flat - image.ravel()).sum(axis=1) for image in images])
