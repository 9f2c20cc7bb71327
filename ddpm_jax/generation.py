"""What Ho et al. 2020 look at in a trained model, as rows of pictures: each study is a function of a run.

All return uint8 [rows, columns, height, width, channels]. The samplers are the experiment's own, over all T steps.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ddpm_jax.data import load
from ddpm_jax.diffusion import samplers
from ddpm_jax.encodings import shown
from ddpm_jax.experiment import Run, bind, keys, labels, resolved, sample_fn, sampler_fn, start

Images = UInt8[np.ndarray, "num height width channels"]
Rows = UInt8[np.ndarray, "rows columns height width channels"]


def progressive(run: Run, num: int = 8, seed: int = 0, frames: int = 11) -> Rows:
    """Progressive generation (Figure 6): each row the estimates of x_0 as t falls from T, and last the sample itself.

    The frames are evenly spaced in t.
    """
    experiment, times = run.experiment, _all_times(run)
    shown = samplers.frame_times(times, frames)

    @jax.jit
    def rows(params, batch_keys, condition):
        made, weights = resolved(experiment, params)
        network, reading = bind(made, weights), made.parameterization
        sampler = sampler_fn(experiment)(params, condition)
        x_0, path = samplers.sample_path(batch_keys, sampler, start(experiment, batch_keys), times, frames)

        def estimate(pair):
            x_t, t = pair
            return reading.x_0(network(x_t, t, condition), x_t, t)

        estimates = jax.lax.map(estimate, (path[:-1], jnp.asarray(shown[:-1])))
        return experiment.codec.decode(jnp.concatenate([estimates, x_0[None]]).swapaxes(0, 1))

    return np.asarray(rows(run.params, keys(seed, num), labels(experiment, num)))


def shared(run: Run, num: int = 8, seed: int = 0, times: Sequence[int] | None = None) -> Rows:
    """Samples that share x_t (Figure 7): a row for each t, by default T, 3T/4, T/2, T/4; x_t first, then its samples.

    The first sample of each row is image 0 of the seed.
    """
    walk, T = walk_fn(run), run.experiment.process.schedule.num_steps
    many, one = keys(seed, num), keys(seed, 1)
    told = labels(run.experiment, 1)  # x_t is of one class, and so are its samples
    each = None if told is None else np.repeat(told, num)
    rows = []
    for t in checked(run, times or sorted({max(1, T * n // 4) for n in (1, 2, 3, 4)}, reverse=True)):
        x_t = walk(run.params, one, start(run.experiment, one), T, t, told)
        x_0 = walk(run.params, many, jnp.repeat(x_t, num, axis=0), t, 0, each)
        rows.append(run.experiment.codec.decode(jnp.concatenate([x_t, x_0])))
    return np.stack(rows)


def interpolate(
    run: Run,
    sources: UInt8[np.ndarray, "2 height width channels"],
    times: Sequence[int],
    weights: Sequence[float],
    seed: int = 0,
) -> Rows:
    """Between two images (Figures 8 and 9): a row for each t, the sources at its ends, these weights between them.

    Both are diffused to x_t, mixed, and taken back: x_t = (1 - weight) x_t + weight x_t'. The noise is the same for all
    weights and rows. t = 0 mixes pixels; the larger t, the coarser what is varied. A network that knows classes is told
    none.
    """
    (experiment, _), walk = resolved(run.experiment, run.params), walk_fn(run)
    x_0 = experiment.codec.encode(keys(seed, 2, start=3), jnp.asarray(sources))
    share = jnp.asarray(weights, jnp.float32).reshape((-1,) + (1,) * (x_0.ndim - 1))
    ends, same = experiment.codec.decode(x_0), jnp.repeat(keys(seed, 1, start=2), len(weights))
    noise = experiment.process.marginal(x_0, 1).noise(keys(seed, 2))
    rows = []
    for t in checked(run, times, least=0):
        x_t = experiment.process.marginal(x_0, t).push(noise)
        mixed = (1 - share) * x_t[:1] + share * x_t[1:]
        between = experiment.codec.decode(walk(run.params, same, mixed, t, 0, None))
        rows.append(jnp.concatenate([ends[:1], between, ends[1:]]))
    return np.stack(rows)


def neighbours(run: Run, num: int = 8, seed: int = 0, nearest: int = 7) -> Rows:
    """Samples, each before its nearest training images in pixel space, nearest first (Figures 12 and 15)."""
    experiment, train = run.experiment, run.experiment.data.open("train")
    drawn = np.asarray(jax.jit(sample_fn(experiment))(run.params, keys(seed, num), labels(experiment, num)))
    chunks = (range(first, min(first + CHUNK, len(train))) for first in range(0, len(train), CHUNK))
    far = np.concatenate([distances(drawn, _images(run, rows)) for rows in chunks], axis=1)
    order = np.argsort(far, axis=1, kind="stable")[:, :nearest]
    return np.stack(
        [np.concatenate([image[None], _images(run, rows.tolist())]) for image, rows in zip(drawn, order, strict=True)]
    )


def _images(run: Run, rows: Sequence[int]) -> Images:
    """These training images as bytes."""
    stored = load(run.experiment.data.open("train"), rows)["image"]
    return np.asarray(shown(jnp.asarray(stored), run.experiment.data.levels))


CHUNK = 256
"""Training images that are looked at together: no more of a large data set is in memory at once."""


def distances(
    images: Images, others: UInt8[np.ndarray, "others height width channels"]
) -> Float[np.ndarray, "num others"]:
    """The squared Euclidean distance of each image to each of the others, in squared levels."""
    others = others.reshape(len(others), -1).astype(np.float32)
    return np.stack([np.square(others - image.ravel()).sum(axis=1) for image in images])


def _all_times(run: Run) -> np.ndarray:
    T = run.experiment.process.schedule.num_steps
    return samplers.times(T, T)


def walk_fn(run: Run) -> Callable[..., Array]:
    """``(params, keys, x, t, s, condition)`` -> the sampler's x at time s, from x at time t; one compilation for all.

    The randomness of each step comes from the key and the time alone: a walk cut in two is the same walk.
    """
    times, make = _all_times(run), sampler_fn(run.experiment)
    T = len(times) - 1

    def walk(params, batch_keys, x, t, s, condition):
        return samplers.stretch(batch_keys, make(params, condition), x, times, T - t, T - s)

    return jax.jit(walk)


def checked(run: Run, times: Sequence[int], least: int = 1) -> Sequence[int]:
    """The times. Raises ValueError for one below `least` or above T."""
    T = run.experiment.process.schedule.num_steps
    for t in times:
        if not least <= t <= T:
            raise ValueError(f"--times {t}: choose from {least} to {T}")
    return times
