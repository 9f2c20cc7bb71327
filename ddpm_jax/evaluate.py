"""What is measured on a trained run: bits per dimension in its parts, and the progressive-coding curve."""

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ddpm_jax import figures
from ddpm_jax.data import load
from ddpm_jax.diffusion.losses import Bound
from ddpm_jax.experiment import Experiment, Run, bound_fn, keys
from ddpm_jax.workdir import load as load_run
from ddpm_jax.workdir import read, write_json


class BitsPerDim(NamedTuple):
    """The bound on the negative log-likelihood, bits per dimension: for each part (mean, standard error over examples).

    The error is None for a single example.
    Ho et al. 2020, Eqs. 5 and 13 and Table 1.
    """

    total: tuple[float, float | None]
    prior: tuple[float, float | None]
    chain: tuple[float, float | None]
    decoder: tuple[float, float | None]
    num_examples: int
    times: int
    """How many of the T - 1 chain terms were looked at in each example; fewer than all is an unbiased estimate."""
    rate: np.ndarray | None
    """Bits/dim received once t has fallen to T, .., 1, decoder excluded [T]; None unless all times were looked at."""
    distortion: np.ndarray | None
    """RMSE of the estimate of x_0 at those t, on the 0-255 scale [T] (Ho et al. 2020, Figure 5 and Table 4)."""

    def record(self) -> dict[str, Any]:
        """The numbers as JSON takes them."""
        curves = {name: None if (curve := getattr(self, name)) is None else curve.tolist() for name in _CURVES}
        return {**self._asdict(), **curves}


_CURVES = ("rate", "distortion")


def bits_per_dim(
    run: Run, source: Sequence, times: int | None = None, batch_size: int = 120, seed: int = 0, progress=iter
) -> BitsPerDim:
    """The bound over all examples of `source`, each looked at with noise of its own: example i depends on (seed, i).

    `times` looks at that many random t per example instead of all T - 1: unbiased, and as much faster. `progress` wraps
    the list of batches, as `tqdm.tqdm` does.
    """
    examples = load(source)
    num_steps = run.experiment.process.schedule.num_steps
    if times is not None and not 1 <= times < num_steps:
        raise ValueError(f"--times {times}: choose 1 to {num_steps - 1} of the {num_steps - 1} chain terms")
    size = min(batch_size, len(source))
    bound = jax.jit(bound_fn(run.experiment))
    parts = []
    for batch, first, real in progress(list(_batches(examples, size))):
        batch_keys = keys(seed, size, first)
        wanted, weights = (None, 1.0) if times is None else _draw_times(batch_keys, times, num_steps)
        terms = bound(run.params, batch_keys, batch, wanted)
        terms = jax.device_get(terms._replace(chain=terms.chain * weights))
        parts.append(jax.tree.map(lambda x, real=real: np.asarray(x[:real], np.float64), terms))
    return _summarise(run.experiment, jax.tree.map(lambda *x: np.concatenate(x), *parts), times)


def _batches(examples: dict[str, np.ndarray], size: int) -> Iterator[tuple[dict[str, np.ndarray], int, int]]:
    """(batch, index of its first example, how many are real): the last is filled up, so that all have one shape."""
    total = len(examples["image"])
    for first in range(0, total, size):
        rows = np.arange(first, first + size) % total
        yield {name: feature[rows] for name, feature in examples.items()}, first, min(size, total - first)


def _draw_times(batch_keys: jax.Array, count: int, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """For each example `count` of the t in 2..T [count, batch], and what to weight their terms with [batch, count].

    t is drawn with density 1/t, about as the terms fall, so that the few that make up most of the sum are not missed;
    one in each of `count` equal parts of the density, all from one uniform shift.
    """
    t = np.arange(2, num_steps + 1)
    density = 1 / t / np.sum(1 / t)
    shift_keys = jax.vmap(jax.random.fold_in, (0, None))(batch_keys, num_steps + 1)  # bound folds in 1..T
    fraction = (jnp.arange(count)[:, None] + jax.vmap(jax.random.uniform)(shift_keys)[None]) / count
    chosen = jnp.searchsorted(jnp.asarray(np.cumsum(density)[:-1], jnp.float32), fraction, side="right")
    return jnp.asarray(t, jnp.int32)[chosen], jnp.asarray(1 / density / len(t), jnp.float32)[chosen].T


def _summarise(experiment: Experiment, terms: Bound, times: int | None) -> BitsPerDim:
    per_dim = 1 / (math.prod(experiment.data.image_shape) * math.log(2))
    total = terms.prior + terms.chain.sum(axis=1) + terms.decoder
    parts = {"total": total, "prior": terms.prior, "chain": terms.chain.sum(axis=1), "decoder": terms.decoder}
    rate = distortion = None
    if times is None:
        received = np.concatenate([terms.prior.mean(keepdims=True), terms.chain.mean(axis=0)])
        rate, distortion = np.cumsum(received) * per_dim, 127.5 * np.sqrt(terms.distortion.mean(axis=0))
    return BitsPerDim(
        **{name: _mean_and_error(values * per_dim) for name, values in parts.items()},
        num_examples=len(total),
        times=terms.chain.shape[1],
        rate=rate,
        distortion=distortion,
    )


def _mean_and_error(values: Any) -> tuple[float, float | None]:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), error


class Protocol(NamedTuple):
    """What decides the numbers of a measurement, apart from the run."""

    metrics: tuple[str, ...] = ("bpd",)
    split: str = "test"
    num: int | None = None
    """Only the first so many examples."""
    times: int | None = None
    seed: int = 0
    clip: bool = True
    """Whether x_0 is clipped where the experiment clips it, as in the released code of Ho et al. 2020."""


QUICK_TIMES, QUICK_EXAMPLES = 50, 500
"""How many chain terms of how many examples the estimate that ends a training run looks at."""


def quick(folder: Path) -> None:
    """A quick estimate of a finished run's bits/dim, to the screen and ``evaluation.json``."""
    few = read(folder).process.schedule.num_steps - 1 <= QUICK_TIMES
    evaluate_workdir(folder, Protocol(num=QUICK_EXAMPLES, times=None if few else QUICK_TIMES))
    print(f"a quick estimate; ddpm-jax evaluate {folder} looks at all terms of all test examples")


def evaluate_workdir(folder: Path, protocol: Protocol, batch_size: int = 120, copy_to: Path | None = None) -> None:
    """Measures the run in `folder`: a table on the screen, a record in ``evaluation.json``, and the curve's picture."""
    for name, value in (("num", protocol.num), ("batch-size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    run = load_run(folder)
    run = run if protocol.clip else _unclipped(run)
    source = run.experiment.data.open(protocol.split)
    source = source if protocol.num is None else [source[i] for i in range(min(protocol.num, len(source)))]
    bar = partial(tqdm, unit="batch", disable=None, leave=False)
    measured = bits_per_dim(run, source, protocol.times, batch_size, protocol.seed, bar)
    print(table(measured))
    record = {"step": run.step, "weights": "ema", "protocol": protocol._asdict(), "bpd": measured.record()}
    add_record(folder / "evaluation.json", record)
    if copy_to is not None:
        write_json(copy_to, record)
    if measured.rate is not None and measured.distortion is not None:
        figures.progressive(measured.rate, measured.distortion, folder / "progressive.png")
        print(f"the progressive-coding curve is in {folder / 'progressive.png'}")


def _unclipped(run: Run) -> Run:
    parameterization = run.experiment.parameterization
    reading = parameterization.unclipped or parameterization
    return run._replace(experiment=dataclasses.replace(run.experiment, parameterization=reading))


def table(measured: BitsPerDim) -> str:
    """The parts of the bound with their standard errors, for people."""
    parts = {name: getattr(measured, name) for name in ("prior", "chain", "decoder", "total")}
    rows = [
        f"{name:8} {mean:9.4f}" + ("" if error is None else f" +- {error:.4f}") for name, (mean, error) in parts.items()
    ]
    heading = f"bits/dim, mean +- standard error: {measured.num_examples} examples, {measured.times} chain terms each"
    return "\n".join([heading, *rows])


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a measurement to the list in `path`, in the place of an earlier one of the same step and protocol."""
    records = json.loads(path.read_text()) if path.exists() else []
    record = json.loads(json.dumps(record))  # tuples as lists, as those in the file are
    places = {json.dumps([other["step"], other["protocol"]]): other for other in (*records, record)}
    write_json(path, list(places.values()))
