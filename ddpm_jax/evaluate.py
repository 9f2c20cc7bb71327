"""What is measured on a trained run: bits per dimension in its parts, and the progressive-coding curve."""

import dataclasses
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ddpm_jax import figures
from ddpm_jax.data import load
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses import Bound
from ddpm_jax.encodings import shown
from ddpm_jax.experiment import Experiment, Run, bound_fn, check_seed, keys, labels
from ddpm_jax.files import whole_file
from ddpm_jax.metrics import parzen
from ddpm_jax.sample import Request, draw
from ddpm_jax.workdir import load as load_run
from ddpm_jax.workdir import read, weights, write_json


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
    K: tuple[float, float | None]
    """The bound of Sohl-Dickstein et al. 2015 on log p(x_0), the last step fixed: bits per place, more is better."""
    K_over_null: tuple[float, float | None]
    """K - L_null: how much better than a model that knows nothing but the prior, bits per place."""
    places: int
    """Pixels of an image, whatever its colours; 1 for points and sequences."""
    rate: np.ndarray | None
    """Bits/dim received once t has fallen to T, .., 1, decoder excluded [T]; None unless all times were looked at."""
    distortion: np.ndarray | None
    """RMSE of the estimate of x_0 at those t, on the 0-255 scale [T] (Ho et al. 2020, Figure 5 and Table 4).

    None also for x_0 that are not bytes over [-1, 1]."""

    def record(self) -> dict[str, Any]:
        """The numbers as JSON takes them."""
        curves = {name: None if (curve := getattr(self, name)) is None else curve.tolist() for name in _CURVES}
        return {**self._asdict(), **curves}


_CURVES = ("rate", "distortion")


class Tally(NamedTuple):
    """What is kept of the examples looked at so far, in nats and in units of x_0 squared: little, however many."""

    parts: np.ndarray
    """prior, chain, decoder, fixed decoder and null of each example [n, 5]."""
    chain: np.ndarray
    """The sum over the examples of each chain term, in the order of the times [T - 1]."""
    distortion: np.ndarray
    """The sum over the examples [T]."""

    def plus(self, terms: Bound) -> "Tally":
        """With the terms of another batch."""
        parts = np.stack([terms.prior, terms.chain.sum(axis=1), terms.decoder, terms.fixed, terms.null], axis=1)
        return Tally(
            np.concatenate([self.parts, parts]),
            self.chain + terms.chain.sum(axis=0),
            self.distortion + terms.distortion.sum(axis=0),
        )


def bits_per_dim(
    run: Run,
    source: Sequence,
    num: int | None = None,
    times: int | None = None,
    batch_size: int = 120,
    seed: int = 0,
    progress=iter,
    keep: Path | None = None,
) -> BitsPerDim:
    """The bound over the first `num` examples of `source`, or all; example i has noise of its own, from (seed, i).

    `times` looks at that many random t per example instead of all T - 1: unbiased, and as much faster. `progress` wraps
    the list of batches, as `tqdm.tqdm` does. What is found is written to the file `keep` after each batch, and gone on
    from where that is there.
    """
    num_steps = run.experiment.process.schedule.num_steps
    if times is not None and not 1 <= times < num_steps:
        raise ValueError(f"--times {times}: choose 1 to {num_steps - 1} of the {num_steps - 1} chain terms")
    total = len(source) if num is None else min(num, len(source))
    size = min(batch_size, total)
    bound = jax.jit(bound_fn(run.experiment))
    count = num_steps - 1 if times is None else times
    tally = _read_tally(keep) or Tally(np.zeros((0, 5)), np.zeros(count), np.zeros(count + 1))
    for first in progress(range(len(tally.parts), total, size)):
        rows = np.arange(first, first + size) % total  # the last batch is filled up, so that all have one shape
        batch_keys = keys(seed, size, first)
        wanted = (None, None) if times is None else _draw_times(batch_keys, times, num_steps)
        terms = jax.device_get(bound(run.params, batch_keys, load(source, rows.tolist()), *wanted))
        tally = tally.plus(jax.tree.map(lambda x, real=total - first: np.asarray(x[:real], np.float64), terms))
        _write_tally(keep, tally)
    return _summarise(run.experiment, tally, whole=times is None)


def _read_tally(path: Path | None) -> Tally | None:
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as arrays:
            return Tally(**arrays)
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
        print(f"{path} cannot be read: measuring from the first example again")
        return None


def _write_tally(path: Path | None, tally: Tally) -> None:
    if path is None:
        return
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, **tally._asdict())


def _draw_times(batch_keys: jax.Array, count: int, num_steps: int) -> tuple[jax.Array, jax.Array]:
    """For each example `count` of the t in 2..T, and what to weight their terms with, both [count, batch].

    t is drawn with density 1/t, about as the terms fall, so that the few that make up most of the sum are not missed;
    one in each of `count` equal parts of the density, all from one uniform shift.
    """
    t = np.arange(2, num_steps + 1)
    density = 1 / t / np.sum(1 / t)
    shift = jax.vmap(jax.random.uniform)(fold(batch_keys, num_steps + 1))  # bound folds in 1..T
    fraction = (jnp.arange(count)[:, None] + shift[None]) / count
    chosen = jnp.searchsorted(jnp.asarray(np.cumsum(density)[:-1], jnp.float32), fraction, side="right")
    return jnp.asarray(t, jnp.int32)[chosen], jnp.asarray(1 / density / count, jnp.float32)[chosen]


def _summarise(experiment: Experiment, tally: Tally, whole: bool) -> BitsPerDim:
    shape, count = experiment.data.image_shape, len(tally.parts)
    per_dim, places = 1 / (math.prod(shape) * math.log(2)), math.prod(shape[:2]) if len(shape) == 3 else 1
    prior, chain, decoder, fixed, null = tally.parts.T
    parts = {"total": prior + chain + decoder, "prior": prior, "chain": chain, "decoder": decoder}
    bound = -(prior + chain + fixed)
    rate = distortion = None
    if whole:
        received = np.concatenate([prior.mean(keepdims=True), tally.chain / count])
        rate = np.cumsum(received) * per_dim
        if experiment.encoding is None and experiment.process.low == -1:
            distortion = 127.5 * np.sqrt(tally.distortion / count)
    return BitsPerDim(
        **{name: _mean_and_error(values * per_dim) for name, values in parts.items()},
        num_examples=count,
        times=len(tally.chain),
        K=_mean_and_error(bound / places / math.log(2)),
        K_over_null=_mean_and_error((bound + null) / places / math.log(2)),
        places=places,
        rate=rate,
        distortion=distortion,
    )


def _mean_and_error(values: Any) -> tuple[float, float | None]:
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return float(values.mean()), error


class Protocol(NamedTuple):
    """What decides the numbers of a measurement, apart from the run."""

    metrics: tuple[str, ...] | None = None
    """Of "bpd", "K" and "parzen"; None is what the experiment says."""
    split: str = "test"
    num: int | None = None
    """Only the first so many examples."""
    times: int | None = None
    seed: int = 0
    clip: bool = True
    """Whether x_0 is clipped where the experiment clips it, as in the released code of Ho et al. 2020."""
    samples: int = 10_000
    """That "parzen" draws."""


QUICK_TIMES, QUICK_EXAMPLES = 50, 500
"""How many chain terms of how many examples the estimate that ends a training run looks at."""


def quick(folder: Path) -> None:
    """A quick estimate of a finished run's bits/dim, to the screen and ``evaluation.json``."""
    few = read(folder).process.schedule.num_steps - 1 <= QUICK_TIMES
    evaluate_workdir(folder, Protocol(num=QUICK_EXAMPLES, times=None if few else QUICK_TIMES))
    print(f"a quick estimate; ddpm-jax evaluate {folder} looks at all terms of all test examples")


def evaluate_workdir(folder: Path, protocol: Protocol, batch_size: int = 120, copy_to: Path | None = None) -> None:
    """Measures the run in `folder`: a table on the screen, a record in ``evaluation.json``, and the curve's picture.

    Interrupted, the same measurement goes on where it stood.
    """
    for name, value in (("num", protocol.num), ("batch-size", batch_size), ("samples", protocol.samples)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    check_seed(protocol.seed)
    run = load_run(folder)
    metrics = protocol.metrics or run.experiment.metrics
    if "parzen" in metrics and len(run.experiment.data.image_shape) != 3:
        raise ValueError(f"--metrics parzen is of images, this run's data have shape {run.experiment.data.image_shape}")
    protocol = protocol._replace(metrics=metrics)
    record = {"step": run.step, "weights": weights(folder, run.step), "protocol": protocol._asdict()}
    keep = _unfinished(folder, run.step, protocol)
    if TABLES.keys() & set(metrics):
        record["bpd"] = _measure_bound(folder, run, protocol, batch_size, keep, metrics)
    if "parzen" in metrics:
        record["parzen"] = _measure_parzen(run, protocol)
    add_record(folder / "evaluation.json", record)
    for path in folder.glob("evaluation_*.npz"):  # also what was left of other checkpoints
        if path == keep or not path.name.startswith(f"evaluation_{run.step}_"):
            path.unlink()
    if copy_to is not None:
        write_json(copy_to, record)


def _measure_bound(
    folder: Path, run: Run, protocol: Protocol, batch_size: int, keep: Path, metrics: Sequence[str]
) -> dict[str, Any]:
    measured = bits_per_dim(
        run if protocol.clip else unclipped(run),
        run.experiment.data.open(protocol.split),
        protocol.num,
        protocol.times,
        batch_size,
        protocol.seed,
        partial(tqdm, unit="batch", disable=None, leave=False),
        keep,
    )
    print("\n".join(TABLES[metric](measured) for metric in metrics if metric in TABLES))
    if measured.rate is not None and measured.distortion is not None and "bpd" in metrics:
        print(coding_table(measured.rate, measured.distortion))
        figures.rate_distortion(measured.rate, measured.distortion, folder / "rate_distortion.png")
        print(f"the whole curve is in {folder / 'rate_distortion.png'}")
    return measured.record()


HELD_OUT = 1000
"""Training images on which the width of the Parzen window is chosen. The protocol of 2014 takes images that were held
out from training; no run here holds any out."""


def _measure_parzen(run: Run, protocol: Protocol) -> dict[str, Any]:
    """The Parzen-window estimate for images with values 0 to 1; the samples are those of `ddpm-jax sample`."""
    data = run.experiment.data
    train, test = data.open("train"), data.open(protocol.split)
    count = len(test) if protocol.num is None else min(protocol.num, len(test))
    stored = [load(train, range(min(HELD_OUT, len(train))))["image"], load(test, range(count))["image"]]
    request = Request(protocol.samples, protocol.seed, "own", None, None, None)
    drawn = np.concatenate(list(draw(run, request, labels(run.experiment, protocol.samples))))
    images = [drawn, *(shown(jnp.asarray(each), data.levels) for each in stored)]
    centres, held_out, tested = (jnp.asarray(each, jnp.float32).reshape(len(each), -1) / 255 for each in images)
    mean, error, width = parzen(centres, held_out, tested)
    told = f"{protocol.samples} samples, {count} examples, width {width:.3f} of {len(held_out)} training images"
    spread = "" if error is None else f" +- {error:.1f}"
    print(f"Parzen window: {mean:.1f}{spread} nats, {mean / math.log(2):.1f} bits ({told})")
    return {"nats": (mean, error), "width": width, "samples": protocol.samples, "num_examples": count}


def _unfinished(folder: Path, step: int, protocol: Protocol) -> Path:
    """Where this measurement is kept until it is finished: another one, or another checkpoint, has another name."""
    told = json.dumps([step, protocol._asdict()], sort_keys=True)
    return folder / f"evaluation_{step}_{zlib.crc32(told.encode()):08x}.npz"


def unclipped(run: Run) -> Run:
    """The run with its estimates of x_0 as they are, where the experiment holds them in the range of the data."""
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


def paper_table(measured: BitsPerDim) -> str:
    """The bound of 2015 and what it is worth, for people."""
    unit = "bits per pixel" if measured.places > 1 else "bits per example"
    heading = f"{unit}, mean +- standard error: {measured.num_examples} examples, {measured.times} chain terms each"
    heading += "; with exact cross-entropies, which hold for any data, in place of the entropies of Eq. 14"
    rows = (("K", measured.K), ("K - L_null", measured.K_over_null))
    told = [f"{name:10} {mean:9.4f}" + ("" if error is None else f" +- {error:.4f}") for name, (mean, error) in rows]
    return "\n".join([heading, *told])


TABLES = {"bpd": table, "K": paper_table}


def coding_table(rate: np.ndarray, distortion: np.ndarray) -> str:
    """Progressive lossy compression at ten times (Ho et al. 2020, Table 4), for people."""
    steps = sorted({max(1, len(rate) * n // 10) for n in range(1, 11)}, reverse=True)
    rows = [f"{n:>13} {rate[n - 1]:>15.5f} {distortion[n - 1]:>18.5f}" for n in steps]
    return "\n".join(["reverse steps  rate (bits/dim)  RMSE (0-255 scale)", *rows])


def add_record(path: Path, record: dict[str, Any]) -> None:
    """Adds a measurement to the list in `path`, in the place of an earlier one of the same step and protocol."""
    records = json.loads(path.read_text()) if path.exists() else []
    record = json.loads(json.dumps(record))  # tuples as lists, as those in the file are
    places = {json.dumps([other["step"], other["protocol"]]): other for other in (*records, record)}
    write_json(path, list(places.values()))
