"""What `sample` does: images of a trained run into a file, keyed one by one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ddpm_jax import figures, workdir
from ddpm_jax.experiment import Run, check_seed, keys, labels, sample_fn
from ddpm_jax.files import whole_folder


class Request(NamedTuple):
    """Which images: all that decides them, apart from the run."""

    num: int
    seed: int
    sampler: str
    """For the record; `eta` decides."""
    steps: int | None
    eta: float | None
    label: int | None
    batch_size: int | None = None
    """Drawn at a time; None is `default_batch_size`."""


def default_batch_size() -> int:
    """Small on a CPU, where more at a time is no faster."""
    return 16 if jax.default_backend() == "cpu" else 256


def sample_to_file(folder: Path, request: Request, out: Path | None, overwrite: bool) -> str:
    """Draws the images, writes them to `out` and says so in a line. What is there already is kept, or is `overwrite`-d.

    Raises ValueError for a request that cannot be met or an `out` that holds something else.
    """
    check(request)
    run = workdir.load(folder)
    out = out or folder / "samples" / _name(request, run.step)
    # the batch size decides how fast, not which
    asked = {name: value for name, value in request._asdict().items() if name != "batch_size"}
    provenance = workdir.provenance(folder, run, **asked)
    write = _writer(out)
    if write is _write_folder and len(run.experiment.data.image_shape) != 3:
        raise ValueError(f"--out {out}: this run's samples are no pictures, end it in .npz or .png")
    if out.exists():
        if not overwrite and _holds(out, provenance):
            return f"{out} holds these very images already"
        check_replaceable(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    told = labels_of(run, request)
    write(out, np.concatenate(list(draw(run, request, told))), told, provenance)
    return f"{request.num} images in {out}"


def check(request: Request) -> None:
    """Raises ValueError for numbers that mean nothing."""
    for name, value in (("num", request.num), ("batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    check_seed(request.seed)


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless `out` may go: that was asked for, and it is of the form to be written.

    A folder has to be one of images made here.
    """
    if not overwrite:
        raise ValueError(f"--out {out} exists and holds something else: choose another name, or --overwrite")
    if out.is_dir() != (out.suffix == ""):
        raise ValueError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: choose another name")
    if out.is_dir() and not (_only_pictures(out) and figures.provenance_of(out)):
        raise ValueError(f"--out {out} is a folder of other things, which stay: choose another name")


def _only_pictures(folder: Path) -> bool:
    return all(path.suffix == ".png" for path in folder.iterdir())


def _holds(out: Path, provenance: dict[str, Any]) -> bool:
    whole = not out.is_dir() or len(list(out.glob("*.png"))) == provenance["num"]
    return whole and figures.provenance_of(out) == provenance


def draw(run: Run, request: Request, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    """uint8 images, `batch_size` at a time, the last batch filled up.

    One shape for all: it compiles once, and image i is the same to the bit whatever `num` is.
    """
    sample = jax.jit(sample_fn(run.experiment, request.steps, request.eta))
    size = request.batch_size or default_batch_size()
    for first in tqdm(range(0, request.num, size), unit_scale=size, unit="image", disable=None, leave=False):
        wanted = None if labels is None else np.resize(labels[first : first + size], size)
        images = sample(run.params, keys(request.seed, size, first), wanted)
        yield np.asarray(images)[: request.num - first]


def labels_of(run: Run, request: Request) -> np.ndarray | None:
    classes = run.experiment.num_classes
    if classes is None:
        if request.label is not None:
            raise ValueError(f"--label {request.label}: this run's network is not told the label")
        return None
    if request.label is not None and not 0 <= request.label < classes:
        raise ValueError(f"--label {request.label}: the classes are 0 to {classes - 1}")
    if request.label is None:
        return labels(run.experiment, request.num)
    return np.full(request.num, request.label, np.int32)


def _name(request: Request, step: int) -> str:
    steps = "" if request.steps is None else f"_steps{request.steps}"
    eta = "" if request.eta is None else f"_eta{request.eta:g}"
    label = "" if request.label is None else f"_label{request.label}"
    return f"{request.sampler}{steps}{eta}{label}_seed{request.seed}_num{request.num}_at{step}.png"


def _writer(out: Path):
    """How to write to this name. Raises ValueError for an ending that is no form of images."""
    writers = {".png": _write_grid, ".npz": figures.save_npz, "": _write_folder}
    if out.suffix not in writers:
        raise ValueError(f"--out {out}: end it in .png (a grid), in .npz, or in nothing (a folder of PNGs)")
    return writers[out.suffix]


def _write_grid(out: Path, images: np.ndarray, labels: np.ndarray | None, provenance: dict[str, Any]) -> None:
    figures.save_png(out, figures.picture(images), provenance)


def _write_folder(out: Path, images: np.ndarray, labels: np.ndarray | None, provenance: dict[str, Any]) -> None:
    with whole_folder(out) as part:
        for number, image in enumerate(images):
            figures.save_png(part / f"{number:06d}.png", image, provenance)
