"""Statistics of a trained run at every t, from which its best times and its best variance are computed."""

import json
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.diffusion.losses import Terms
from ddpm_jax.diffusion.parameterizations import analytic, fixed_large, fixed_small
from ddpm_jax.diffusion.samplers import step_costs
from ddpm_jax.diffusion.types import Variance
from ddpm_jax.experiment import terms_fn
from ddpm_jax.runs import models, workdir
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.chunks import Result, Work, kept
from ddpm_jax.runs.likelihood import over_examples
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.sampling import Run
from ddpm_jax.system.files import whole_file
from ddpm_jax.training import distributed

IMAGES = 100
"""The number of training images. Bao et al. 2022, Table 5: 10 to 100 serve as well as 50,000."""
AT_ONCE = 20
"""The number of images that a device evaluates together; a part of the definition of `Statistics.analytic_decoder`."""
VARIANCES = {"fixed_small": fixed_small, "fixed_large": fixed_large}
"""The fixed variances by name."""


class Statistics(NamedTuple):
    """Means over images, per element, at t = 0..T; 0 at t = 0."""

    errors: np.ndarray
    """[T + 1]: (x_0 - estimate of x_0)^2."""
    decoder: np.ndarray
    """[T + 1]: -log p(x_0 | x_t), in nats, with the variances `fixed_small` and `fixed_large`."""
    analytic_decoder: np.ndarray
    """[T + 1]: the same with the variance `analytic`, from the errors of 20 images at a time."""

    def variance(self, name: str) -> Variance:
        """The variance of this name: fixed_small, fixed_large or analytic."""
        return analytic(np.asarray(self.errors, np.float32)) if name == "analytic" else VARIANCES[name]

    def costs(self, run: Run, name: str) -> np.ndarray:
        """The costs of all steps of the run with the variance of this name, as `samplers.step_costs` defines them."""
        decoder = self.analytic_decoder if name == "analytic" else self.decoder
        return step_costs(run.schedule, self.variance(name), self.errors, decoder)


def statistics(
    folder: Path, run: Run, weights: str | float = "ema", num: int = IMAGES, reporter: Reporter | None = None
) -> Statistics:
    """The statistics of the run on `num` training images, spread evenly over all of them.

    They are those of the network without guidance, and cost as many calls of it as `num` samples in T steps. They are
    kept in `folder`, the workdir of the run, in ``statistics.npz`` (``statistics_raw.npz`` for the raw parameters),
    with what determines them: program, knobs, parameters, data, clipping. They are estimated anew if this differs or if
    they are of fewer images. Those of a model are kept in its `models.home`. Every process must call this function.
    Raises ValueError unless the process is Gaussian.
    """
    run.experiment.process.require_gaussian("statistics of the bound")
    reporter, source = reporter or Reporter(), run.experiment.data.open("train")
    num = min(num, len(source))
    made_from = json.dumps(_made_from(folder, run), sort_keys=True, default=str)
    home = models.home(folder)
    path = home / f"statistics{workdir.marked(weights)}.npz"
    found = _read(path, made_from, num)
    if distributed.agree(found is not None) and found is not None:
        return found
    reporter.line(f"estimating the errors at every t on {num} training images, once: they are kept in {path}")
    keep = home / f"statistics_{zlib.crc32(f'{num} {made_from}'.encode()):08x}"
    work = terms_work(run, Spread(source, num), num, min(num, AT_ONCE))
    found = _mean(list(kept(work, keep, reporter)))
    distributed.wait_for_all("statistics")  # until then other processes read what is kept
    with distributed.all_or_none(f"process 0 cannot write into {home}"):
        if distributed.is_leader():
            with whole_file(path) as part, part.open("wb") as file:
                np.savez(file, allow_pickle=False, images=num, made_from=made_from, **found._asdict())
            shutil.rmtree(keep, ignore_errors=True)
    return found


def _made_from(folder: Path, run: Run) -> dict[str, Any]:
    """What determines the statistics, apart from the number of images."""
    data, clip = data_identity(run.experiment.data, "train")["digest"], run.experiment.parameterization.clip
    return workdir.provenance(folder, run, data=data, clip=clip)


class Spread(Sequence):
    """`num` examples of a source, at equal distances: data that are sorted by class have all classes in them."""

    def __init__(self, source: Sequence, num: int):
        self._source, self._rows = source, np.linspace(0, len(source) - 1, num).round().astype(int).tolist()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._source[self._rows[index]]


def terms_work(
    run: Run,
    source: Sequence,
    num: int,
    size: int,
    seed: int = 0,
    errors: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> Work:
    """The terms of `losses.terms` of the first `num` examples, as {"prior": [chunk], "errors": [chunk, T], ..}.

    `errors` [T + 1] are those of the variance `analytic`; by default those of the `size` examples of a chunk. `targets`
    [T, targets] are the ends of the steps of ``Terms.own``; by default there are none.
    """
    terms = terms_fn(run.experiment)

    def one(params: Any, batch_keys: jax.Array, batch: Any) -> Terms:
        return terms(params, batch_keys, batch, None if errors is None else np.asarray(errors, np.float32), targets)

    return over_examples(run, source, num, size, seed, one, lambda found: found._asdict())


def _mean(results: Sequence[Result]) -> Statistics:
    def mean(name: str) -> np.ndarray:
        return np.append(0.0, np.concatenate([result[name] for result in results]).mean(axis=0))

    return Statistics(*(mean(name) for name in Statistics._fields))


def _read(path: Path, made_from: str, num: int) -> Statistics | None:
    """The statistics in the file; None if they were made from something else or fewer images, or are damaged."""
    try:
        with np.load(path) as arrays:
            if str(arrays["made_from"]) != made_from or arrays["images"] < num:
                return None
            return Statistics(*(arrays[name] for name in Statistics._fields))
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
