"""What `study` does: looks into a trained run, in one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ddpm_jax import figures, generation, restoration, workdir
from ddpm_jax.data import load
from ddpm_jax.experiment import Run, check_seed

Kind = Literal["progressive", "shared", "interpolate", "neighbours", "chain", "denoise", "inpaint"]


class Study(NamedTuple):
    """Which study: all that decides the picture, apart from the run. None is each study's own choice."""

    kind: Kind
    num: int | None = None
    seed: int = 0
    times: Sequence[int] | None = None
    weights: Sequence[float] | None = None
    split: Literal["test", "train"] = "test"
    noise: float | None = None
    annealed: bool = False
    missing: restoration.Missing = "centre"
    noised: bool = False


BELONGS: dict[str, tuple[Kind, ...]] = {
    "times": ("shared", "interpolate", "chain"),
    "weights": ("interpolate",),
    "split": ("interpolate",),
    "noise": ("denoise",),
    "annealed": ("denoise",),
    "missing": ("inpaint",),
    "noised": ("inpaint",),
}
"""The studies that an option is of, where it is not of all."""

Made = tuple[np.ndarray, str]
"""A picture, and what is seen in it."""

OF_ALL: tuple[Kind, ...] = ("chain", "denoise", "inpaint")
"""The studies that also know sequences and points."""


def _rows(rows: np.ndarray) -> Made:
    picture = figures.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
    return picture, f"{rows.shape[0]} rows of {rows.shape[1]}"


def _shared(run: Run, study: Study) -> Made:
    return _rows(generation.shared(run, study.num or 8, study.seed, study.times))


def _between_images(run: Run, study: Study) -> Made:
    """`interpolate` between two images that the seed chooses, from pixels to the coarsest."""
    T = run.experiment.process.schedule.num_steps
    source = run.experiment.data.open(study.split)
    if len(source) < 2:
        raise ValueError(f"the {study.split} split has {len(source)} image: interpolation is between two")
    pair = np.random.default_rng(study.seed).choice(len(source), 2, replace=False)
    sources = load(source, pair.tolist())["image"]
    weights = study.weights or np.linspace(0, 1, study.num or 8).tolist()
    times = study.times or [T * n // 8 for n in range(9)]
    return _rows(generation.interpolate(run, sources, times, weights, study.seed))


def _chain(run: Run, study: Study) -> Made:
    T = run.experiment.process.schedule.num_steps
    times = study.times or (0, T // 2, T)
    made = restoration.chain(run, times, study.num or _several(run), study.seed)
    cells = [figures.picture(cell) for row in (made.forward, made.reverse) for cell in row]
    told = f"forward and reverse chain at t = {', '.join(map(str, times))}"
    if run.experiment.data.levels is None:
        cells += [figures.scatter(x, drift) for x, drift in zip(made.reverse, made.drift, strict=True)]
        told += ", with its drift"
    return figures.grid(np.stack(cells), columns=len(times)), told


def _denoise(run: Run, study: Study) -> Made:
    made = restoration.denoise(run, study.num or _several(run), study.seed, study.noise, study.annealed)
    return _sheet(made), "test examples, with noise, restored"


def _inpaint(run: Run, study: Study) -> Made:
    made = restoration.inpaint(run, study.num or _several(run), study.seed, study.missing, study.noised)
    return _sheet(made), f"test examples, without {study.missing}, filled in"


def _several(run: Run) -> int:
    """How many are looked at: points make a picture only together."""
    return {3: 8, 1: 20}[len(run.experiment.data.image_shape)] if run.experiment.data.levels else 2000


def _sheet(made: restoration.Restored) -> np.ndarray:
    """Images one above the other; of sequences and points a cell for each kind."""
    if made.clean.ndim == 4:
        return figures.grid(np.concatenate(made), columns=len(made.clean))
    return figures.grid(np.stack([figures.picture(samples) for samples in made]), columns=3)


STUDIES: dict[Kind, Callable[[Run, Study], Made]] = {
    "progressive": lambda run, study: _rows(generation.progressive(run, study.num or 8, study.seed)),
    "shared": _shared,
    "interpolate": _between_images,
    "neighbours": lambda run, study: _rows(generation.neighbours(run, study.num or 8, study.seed)),
    "chain": _chain,
    "denoise": _denoise,
    "inpaint": _inpaint,
}


def check(study: Study) -> None:
    """Raises ValueError for numbers that mean nothing, and for options of other studies."""
    if study.num is not None and study.num < 1:
        raise ValueError(f"--num must be at least 1, got {study.num}")
    for name, kinds in BELONGS.items():
        if getattr(study, name) != Study._field_defaults[name] and study.kind not in kinds:
            raise ValueError(f"--{name} is of the study {' and '.join(kinds)}, not of {study.kind}")
    check_seed(study.seed)


def study_to_file(folder: Path, study: Study, out: Path | None, overwrite: bool) -> str:
    """Makes the study of the run in `folder`, writes it as a picture, and says so in a line.

    Raises ValueError for numbers that mean nothing or an `out` that exists.
    """
    check(study)
    run = workdir.load(folder)
    shape = run.experiment.data.image_shape
    if study.kind not in OF_ALL and len(shape) != 3:
        raise ValueError(
            f"the study {study.kind} is of images, this run's data have shape {shape}: choose {', '.join(OF_ALL)}"
        )
    out = out or folder / "studies" / f"{study.kind}_seed{study.seed}_at{run.step}.png"
    if out.suffix != ".png":
        raise ValueError(f"--out {out}: a study is a picture, end it in .png")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists: choose another name with --out, or --overwrite")
    picture, told = STUDIES[study.kind](run, study)
    out.parent.mkdir(parents=True, exist_ok=True)
    figures.save_png(out, picture, workdir.provenance(folder, run, study=study._asdict()))
    return f"{told} in {out}"
