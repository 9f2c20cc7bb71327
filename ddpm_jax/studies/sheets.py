"""Draws a study of a trained run as one picture, and writes it to a file."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import figures
from ddpm_jax.data import load
from ddpm_jax.runs import models, workdir
from ddpm_jax.runs.features import PIXELS, of_path
from ddpm_jax.runs.statistics import statistics
from ddpm_jax.sampling import Run
from ddpm_jax.studies import bounds, ho_2020, reconstruct, sohl_dickstein_2015, sweep
from ddpm_jax.studies.requests import EditRequest, Kind, StudyRequest
from ddpm_jax.system.files import write_json
from ddpm_jax.training.keys import check_seed


class Sheet(NamedTuple):
    """A picture, uint8 [height, width, channels], and a phrase that describes it."""

    picture: np.ndarray
    caption: str
    records: list[dict[str, Any]] | None = None
    """What was measured, to be written beside the picture."""


class Study(NamedTuple):
    """A kind of study: the function that draws it, and whether it needs images."""

    draw: Callable[[Run, StudyRequest], Sheet]
    images_only: bool = False
    """Whether the data of the run must be images. Other studies also draw points and sequences of bits."""
    measures: bool = False
    """Whether it also writes a .json with what it measured."""


def study_to_file(request: StudyRequest) -> str:
    """Draws the study and writes it as a PNG, with its provenance. Returns a line that names the file.

    Raises ValueError for numbers out of range, options of another study, data that the study cannot draw, and an output
    that exists or is no .png; FileNotFoundError for a folder that is no workdir.
    """
    check(request)
    run = workdir.load(request.workdir, request.weights, request.checkpoint)
    check_data(request.kind, run)
    name = f"{request.kind}{workdir.marked(request.weights)}_seed{request.seed}_at{run.step}.png"
    out = request.out or models.home(request.workdir) / "studies" / name
    check_output(out, request.overwrite)
    if STUDIES[request.kind].measures and out.with_suffix(".json").exists() and not request.overwrite:
        raise ValueError(f"{out.with_suffix('.json')} exists: choose another name with --out, or use --overwrite")
    sheet = STUDIES[request.kind].draw(run, request)
    out.parent.mkdir(parents=True, exist_ok=True)
    figures.save_png(out, sheet.picture, workdir.provenance(request.workdir, run, study=request.picture_options()))
    if sheet.records is not None:
        write_json(out.with_suffix(".json"), sheet.records)
    return f"{sheet.caption} in {out}"


def check(request: StudyRequest) -> None:
    """Raises ValueError for numbers out of range and for options of other studies."""
    if request.num is not None and request.num < 1:
        raise ValueError(f"--num must be at least 1, got {request.num}")
    check_kind(request)
    check_seed(request.seed)


def check_kind(request: StudyRequest | EditRequest) -> None:
    """Raises ValueError for an option of another kind."""
    for option in fields(request):
        kinds = option.metadata.get("kinds", (request.kind,))
        if request.kind not in kinds and getattr(request, option.name) != option.default:
            name = option.name.replace("_", "-")
            raise ValueError(f"--{name} applies to {', '.join(kinds)}, not to {request.kind}")


def check_data(kind: Kind, run: Run) -> None:
    """Raises ValueError if the study needs images and the data of the run are points or sequences."""
    shape = run.experiment.data.image_shape
    if STUDIES[kind].images_only and len(shape) != 3:
        others = ", ".join(name for name, study in STUDIES.items() if not study.images_only)
        raise ValueError(f"{kind} needs images, and the data of this run have shape {shape}: choose {others}")


def check_output(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless a picture may be written to `out`."""
    if out.suffix != ".png":
        raise ValueError(f"--out {out}: a study is a picture, end it in .png")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists: choose another name with --out, or replace it with --overwrite")


def _progressive(run: Run, request: StudyRequest) -> Sheet:
    return _rows(ho_2020.progressive(run, request.num or 8, request.seed))


def _shared(run: Run, request: StudyRequest) -> Sheet:
    return _rows(ho_2020.shared(run, request.num or 8, request.seed, request.times))


def _interpolate(run: Run, request: StudyRequest) -> Sheet:
    """Interpolations between two images that the seed chooses."""
    ho_2020.check_unconditional(run)
    T, source = run.experiment.process.schedule.num_steps, run.experiment.data.open(request.split)
    if len(source) < 2:
        raise ValueError(f"interpolate needs two images, and --split {request.split} has {len(source)}")
    pair = np.random.default_rng(request.seed).choice(len(source), 2, replace=False)
    images = load(source, pair.tolist())["image"]
    shares = request.shares or np.linspace(0, 1, request.num or 8).tolist()
    times = request.times or [T * n // 8 for n in range(9)]
    return _rows(ho_2020.interpolate(run, images, times, shares, request.seed))


def _neighbours(run: Run, request: StudyRequest) -> Sheet:
    return _rows(ho_2020.neighbours(run, request.num or 8, request.seed))


def _chain(run: Run, request: StudyRequest) -> Sheet:
    """A row of the forward chain above a row of the reverse chain; for points, a third row shows the drift."""
    T = run.experiment.process.schedule.num_steps
    times = request.times or (0, T // 2, T)
    chains = sohl_dickstein_2015.chain(run, times, request.num or _default_num(run), request.seed)
    cells = [figures.picture(x) for x in (*chains.forward, *chains.reverse)]
    caption = f"forward and reverse chain at t = {', '.join(map(str, times))}"
    if run.experiment.data.levels is None:
        cells += [figures.scatter(x, drift) for x, drift in zip(chains.reverse, chains.drift, strict=True)]
        caption += ", with the drift of the reverse chain"
    return Sheet(figures.grid(np.stack(cells), columns=len(times)), caption)


def _denoise(run: Run, request: StudyRequest) -> Sheet:
    num = request.num or _default_num(run)
    restored = sohl_dickstein_2015.denoise(run, num, request.seed, request.noise, request.annealed)
    return Sheet(_restored(restored), "test examples (clean, with noise, restored)")


def _inpaint(run: Run, request: StudyRequest) -> Sheet:
    num = request.num or _default_num(run)
    restored = sohl_dickstein_2015.inpaint(run, num, request.seed, request.missing, request.noised)
    return Sheet(_restored(restored), f"test examples (clean, with the {request.missing} missing, filled in)")


def _sweep(run: Run, request: StudyRequest) -> Sheet:
    features = PIXELS if request.features is None else of_path(request.features, run.experiment.data.image_shape)
    given = (request.spacing, request.num or 1024, request.seed, request.etas, features)
    points = sweep.sweep(run, request.samplers, request.steps, *given)
    test, name = sweep.between_splits(run, features), features.protocol["features"]
    curves: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        curves.setdefault(point.label, []).append((float(point.calls), point.distance))
    what = f"Frechet distance of {'pixels' if request.features is None else f'the features of {name}'}"
    caption = f"{sweep.table(points, test)}\nthe {what} from the training images, as curves"
    protocol = {"spacing": request.spacing, "num": request.num or 1024, "seed": request.seed, "test_distance": test}
    protocol |= features.protocol
    records = [point._asdict() | protocol for point in points]
    return Sheet(figures.curves(curves, "network calls", what, test, "test images"), caption, records)


def _bounds(run: Run, request: StudyRequest) -> Sheet:
    found = statistics(request.workdir, run, request.weights)
    points = bounds.bounds(run, found, request.steps, request.num, request.seed)
    picture = figures.curves(
        bounds.curves(points, ("linspace", "optimal")), "steps", "bound, bits/dim", *bounds.least(points)
    )
    records = [point._asdict() | {"seed": request.seed, "images": request.num} for point in points]
    caption = f"{bounds.table(points)}\nbits/dim of test images, as curves"
    return Sheet(picture, caption, records)


def _reconstruct(run: Run, request: StudyRequest) -> Sheet:
    points = reconstruct.reconstruct(run, request.steps, request.spacing, request.num, request.seed)
    levels = run.experiment.data.levels or 256
    level = reconstruct.of_rounding(levels), f"rounding to {levels} levels"
    picture = figures.curves(reconstruct.curves(points), "steps", "mean squared error of pixels", *level)
    protocol = {"spacing": request.spacing, "seed": request.seed, "images": request.num}
    caption = f"{reconstruct.table(points)}\nthe error of test images that DDIM encodes and decodes, as curves"
    return Sheet(picture, caption, [point._asdict() | protocol for point in points])


def _rows(rows: np.ndarray) -> Sheet:
    picture = figures.grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1])
    return Sheet(picture, f"{rows.shape[0]} rows of {rows.shape[1]} images")


def _default_num(run: Run) -> int:
    """The default number of examples: 8 images, 20 sequences, or 2000 points, which share one scatter plot."""
    if run.experiment.data.levels is None:
        return 2000
    return 8 if len(run.experiment.data.image_shape) == 3 else 20


def _restored(restored: sohl_dickstein_2015.Restored) -> np.ndarray:
    """Three rows of images: clean, corrupted, restored; or three cells of points or sequences, side by side."""
    if restored.clean.ndim == 4:
        return figures.grid(np.concatenate(restored), columns=len(restored.clean))
    return figures.grid(np.stack([figures.picture(samples) for samples in restored]), columns=3)


STUDIES: dict[Kind, Study] = {
    "progressive": Study(_progressive, images_only=True),
    "shared": Study(_shared, images_only=True),
    "interpolate": Study(_interpolate, images_only=True),
    "neighbours": Study(_neighbours, images_only=True),
    "chain": Study(_chain),
    "denoise": Study(_denoise),
    "inpaint": Study(_inpaint),
    "sweep": Study(_sweep, images_only=True, measures=True),
    "bounds": Study(_bounds, images_only=True, measures=True),
    "reconstruct": Study(_reconstruct, images_only=True, measures=True),
}
