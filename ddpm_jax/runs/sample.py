"""Sampling from a run into a file or folder. Each image has its own random key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax import figures
from ddpm_jax.diffusion.samplers import SAMPLERS, SPACINGS
from ddpm_jax.experiment import Run, labels, sample_fn
from ddpm_jax.runs import workdir
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.system.files import whole_folder
from ddpm_jax.training.keys import check_seed, keys


def default_batch_size() -> int:
    """The default number of images drawn at a time: small on a CPU, where a larger batch is no faster."""
    return 16 if jax.default_backend() == "cpu" else 256


def sample_to_file(request: SampleRequest, reporter: Reporter | None = None) -> str:
    """Draws the images and writes them to the output of the request. Returns a line that names it.

    An output that holds these images already is kept; another is replaced only with ``overwrite``. Raises ValueError
    for options that are out of range or do not fit the run, FileNotFoundError for a folder without a run.
    """
    check(request)
    run = workdir.load(request.workdir)
    out = request.out or request.workdir / "samples" / _name(request, run)
    provenance = workdir.provenance(request.workdir, run, **_identity(request, run))
    write = _writer(out)
    if write is _write_folder and len(run.experiment.data.image_shape) != 3:
        raise ValueError(f"--out {out}: the samples of this run are not images: choose a name ending in .npz or .png")
    if out.exists():
        if not request.overwrite and _holds(out, provenance):
            return f"{out} holds these images already"
        check_replaceable(out, request.overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    condition = labels_of(run, request)
    images = np.concatenate(list(draw(run, request, condition, reporter)))
    write(out, images, condition, provenance)
    return f"{request.num} images in {out}"


def check(request: SampleRequest) -> None:
    """Raises ValueError if `num`, `batch_size` or `seed` is out of range."""
    for name, value in (("num", request.num), ("batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    check_seed(request.seed)


def sampler_name(request: SampleRequest, run: Run) -> str:
    """The name of the sampler of this request; "own" for a sampler of the experiment that SAMPLERS does not have."""
    if request.sampler is not None:
        return request.sampler
    if request.eta is not None:
        return "ddim"
    return next((name for name, kind in SAMPLERS.items() if kind is run.experiment.sampler), "own")


def _identity(request: SampleRequest, run: Run) -> dict[str, Any]:
    """The options that determine the images of a run, as they are recorded. The batch size is not one of them."""
    names = ("num", "seed", "steps", "spacing", "eta", "label")
    return {name: getattr(request, name) for name in names} | {"sampler": sampler_name(request, run)}


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless `out` may be replaced: with `overwrite`, and only by an output of its kind.

    A folder must hold nothing but images of this library.
    """
    if not overwrite:
        raise ValueError(f"--out {out} exists and holds something else: choose another name, or --overwrite")
    if out.is_dir() != (out.suffix == ""):
        raise ValueError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: choose another name")
    if out.is_dir() and not (_only_pictures(out) and figures.provenance_of(out)):
        raise ValueError(f"--out {out} is a folder with other things, and is not replaced: choose another name")


def _only_pictures(folder: Path) -> bool:
    return all(path.suffix == ".png" for path in folder.iterdir())


def _holds(out: Path, provenance: dict[str, Any]) -> bool:
    whole = not out.is_dir() or len(list(out.glob("*.png"))) == provenance["num"]
    return whole and figures.provenance_of(out) == provenance


def draw(
    run: Run, request: SampleRequest, condition: np.ndarray | None, reporter: Reporter | None = None
) -> Iterator[np.ndarray]:
    """Yields the samples of the request in batches, such as images uint8 [batch, height, width, channels].

    The last batch is computed at full size, so there is one compilation, and image i is the same to the bit for every
    `num`.
    """
    kind = None if request.sampler is None else SAMPLERS[request.sampler]
    sample = sample_fn(run.experiment, kind, request.steps, request.eta, SPACINGS[request.spacing])
    size = request.batch_size or default_batch_size()
    for first in (reporter or Reporter()).track(range(0, request.num, size), "image", size):
        batch_labels = None if condition is None else np.resize(condition[first : first + size], size)
        images = sample(run.params, keys(request.seed, size, first), batch_labels)
        yield np.asarray(images)[: request.num - first]


def labels_of(run: Run, request: SampleRequest) -> np.ndarray | None:
    """The label of each image, int32 [num]; None for an unconditional run. Raises ValueError for a wrong label."""
    classes = run.experiment.num_classes
    if classes is None:
        if request.label is not None:
            raise ValueError(f"--label {request.label}: leave it out, this run is not class-conditional")
        return None
    if request.label is not None and not 0 <= request.label < classes:
        raise ValueError(f"--label {request.label}: the classes are 0 to {classes - 1}")
    if request.label is None:
        return labels(run.experiment, request.num)
    return np.full(request.num, request.label, np.int32)


def _name(request: SampleRequest, run: Run) -> str:
    """The file name of the default output."""
    steps = "" if request.steps is None else f"_steps{request.steps}"
    spacing = "" if request.spacing == "even" else f"_{request.spacing}"
    eta = "" if request.eta is None else f"_eta{request.eta:g}"
    label = "" if request.label is None else f"_label{request.label}"
    sampler = sampler_name(request, run)
    return f"{sampler}{steps}{spacing}{eta}{label}_seed{request.seed}_num{request.num}_at{run.step}.png"


def _writer(out: Path):
    """The function that writes a file of this name. Raises ValueError for an unknown suffix."""
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
