"""What Ho et al. 2020 look at in a trained model, as rows of pictures: each study is a function of a run.

All return uint8 [rows, columns, height, width, channels]. The samplers are the experiment's own, over all T steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from ddpm_jax import figures, workdir
from ddpm_jax.data import load
from ddpm_jax.diffusion import samplers
from ddpm_jax.experiment import Run, bind, keys, sample_fn, start, to_float, to_uint8, walk_fn

Rows = UInt8[np.ndarray, "rows columns height width channels"]


def progressive(run: Run, num: int = 8, seed: int = 0, frames: int = 11) -> Rows:
    """Progressive generation (Figure 6): each row the estimates of x_0 as t falls from T, and last the sample itself.

    The frames are evenly spaced in t.
    """
    experiment = run.experiment
    times = _all_times(run)
    shown = samplers.frame_times(times, frames)

    @jax.jit
    def rows(params, batch_keys):
        network, reading = bind(experiment, params), experiment.parameterization
        sampler = experiment.sampler(experiment.process, reading, network, None)
        x_0, path = samplers.sample_path(batch_keys, sampler, start(experiment, batch_keys), times, frames)

        def estimate(pair):
            x_t, t = pair
            return reading.x_0(network(x_t, t, None), x_t, t)

        estimates = jax.lax.map(estimate, (path[:-1], jnp.asarray(shown[:-1])))
        return to_uint8(jnp.concatenate([estimates, x_0[None]]).swapaxes(0, 1))

    return np.asarray(rows(run.params, keys(seed, num)))


def shared(run: Run, num: int = 8, seed: int = 0, times: Sequence[int] | None = None) -> Rows:
    """Samples that share x_t (Figure 7): a row for each t, by default T, 3T/4, T/2, T/4; x_t first, then its samples.

    The first sample of each row is image 0 of the seed.
    """
    all_times, walk = _all_times(run), jax.jit(walk_fn(run.experiment))
    wanted = [_time(run, t) for t in (times or [run_steps(run) * n // 4 for n in (4, 3, 2, 1)])]
    many, one = keys(seed, num), keys(seed, 1)
    rows = []
    for t in wanted:
        split = int(np.flatnonzero(all_times == t)[0])
        x_t = walk(run.params, one, start(run.experiment, one), all_times[: split + 1])
        ends = walk(run.params, many, jnp.repeat(x_t, num, axis=0), all_times[split:])
        rows.append(to_uint8(jnp.concatenate([x_t, ends])))
    return np.stack(rows)


def interpolate(
    run: Run, sources: UInt8[np.ndarray, "2 height width channels"], times: Sequence[int], num: int = 11, seed: int = 0
) -> Rows:
    """Between two images (Figures 8 and 9): a row for each t, the sources at its ends, weights 0 to 1 between them.

    Both are diffused to x_t, mixed, and taken back: x_t = (1 - weight) x_t + weight x_t'. The noise is the same for all
    weights and rows. t = 0 mixes pixels; the larger t, the coarser what is varied.
    """
    experiment, walk = run.experiment, jax.jit(walk_fn(run.experiment))
    x_0 = to_float(jnp.asarray(sources), experiment.data.levels)
    weights = jnp.linspace(0, 1, num).reshape((num,) + (1,) * (x_0.ndim - 1))
    ends, same = to_uint8(x_0), jnp.repeat(keys(seed, 1, start=2), num)
    noise = experiment.process.marginal(x_0, 1).noise(keys(seed, 2))
    rows = []
    for t in (_time(run, t, least=0) for t in times):
        x_t = experiment.process.marginal(x_0, t).push(noise)
        mixed = (1 - weights) * x_t[:1] + weights * x_t[1:]
        between = to_uint8(walk(run.params, same, mixed, np.arange(t, -1, -1, dtype=np.int32)) if t else mixed)
        rows.append(jnp.concatenate([ends[:1], between, ends[1:]]))
    return np.stack(rows)


def neighbours(run: Run, num: int = 8, seed: int = 0, nearest: int = 7) -> Rows:
    """Samples, each before its nearest training images in pixel space (Figures 12 and 15)."""
    levels = run.experiment.data.levels
    train = np.asarray(to_uint8(to_float(jnp.asarray(load(run.experiment.data.open("train"))["image"]), levels)))
    drawn = np.asarray(jax.jit(sample_fn(run.experiment))(run.params, keys(seed, num)))
    order = [nearest_to(image, train, nearest) for image in drawn]
    return np.stack([np.concatenate([image[None], train[rows]]) for image, rows in zip(drawn, order, strict=True)])


def nearest_to(image: np.ndarray, others: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` of the others with the least squared distance to the image, nearest first."""
    axes = tuple(range(1, others.ndim))
    return np.argsort(np.square(others.astype(np.float32) - image).sum(axis=axes), kind="stable")[:count]


def run_steps(run: Run) -> int:
    """T."""
    return run.experiment.process.schedule.num_steps


def _all_times(run: Run) -> np.ndarray:
    return samplers.times(run_steps(run), run_steps(run))


def _time(run: Run, t: int, least: int = 1) -> int:
    if not least <= t <= run_steps(run):
        raise ValueError(f"--times {t}: choose from {least} to {run_steps(run)}")
    return t


def _between_test_images(run: Run, num: int, seed: int, times: Sequence[int] | None) -> Rows:
    """`interpolate` between two test images that the seed chooses, from pixels to the coarsest."""
    test = run.experiment.data.open("test")
    pair = np.random.default_rng(seed).choice(len(test), 2, replace=False)
    sources = np.stack([test[int(row)]["image"] for row in pair])
    return interpolate(run, sources, times or [run_steps(run) * n // 8 for n in range(9)], num, seed)


STUDIES: dict[str, Callable[..., Rows]] = {
    "progressive": lambda run, num, seed, times: progressive(run, num, seed),
    "shared": shared,
    "interpolate": _between_test_images,
    "neighbours": lambda run, num, seed, times: neighbours(run, num, seed),
}


def study_to_file(
    kind: str, folder: Path, num: int, seed: int, times: Sequence[int] | None, out: Path | None, overwrite: bool
) -> str:
    """Makes the study of the run in `folder`, writes it as a grid, and says so in a line.

    Raises ValueError for numbers that mean nothing or an `out` that exists.
    """
    if num < 1:
        raise ValueError(f"--num must be at least 1, got {num}")
    if times and kind not in ("shared", "interpolate"):
        raise ValueError(f"--times: the study {kind} shows all of them")
    run = workdir.load(folder)
    out = out or folder / "studies" / f"{kind}_seed{seed}_at{run.step}.png"
    if out.suffix != ".png":
        raise ValueError(f"--out {out}: a study is a picture, end it in .png")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists: choose another name with --out, or --overwrite")
    rows = STUDIES[kind](run, num, seed, times)
    out.parent.mkdir(parents=True, exist_ok=True)
    made_by = {"study": kind, "num": num, "seed": seed, "times": times, "checkpoint": run.step}
    figures.save_png(out, figures.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1]), made_by)
    return f"{rows.shape[0]} rows of {rows.shape[1]} in {out}"
