"""Edits an image with a trained run, and writes the results to a file."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax import figures
from ddpm_jax.diffusion.guidance import LinearMeasurement
from ddpm_jax.runs import models, workdir
from ddpm_jax.sampling import Run
from ddpm_jax.studies import editing, pictures
from ddpm_jax.studies.requests import MEASURED, EditRequest
from ddpm_jax.studies.sheets import check_kind
from ddpm_jax.training.keys import EVALUATE, check_seed, keys


class Edited(NamedTuple):
    """A row of images, uint8 [.., height, width, channels]."""

    before: np.ndarray
    """The measurement as a picture, the guide, or the first of two images."""
    results: np.ndarray
    after: np.ndarray
    """The original, or the second of two images; none where it is not known."""
    note: str = ""
    """More about the results."""


def edit_to_file(request: EditRequest) -> str:
    """Edits the image and writes a PNG of all, or an npz of the results. Returns a line that names the file.

    Raises ValueError for options out of range or of another kind, images of another size, a run whose data are not
    images or whose process is not Gaussian, and an output that exists; FileNotFoundError for a missing file or run.
    """
    check(request)
    run = workdir.load(request.workdir, request.weights, request.checkpoint)
    check_run(request, run)
    method = f"_{request.method}" if request.kind in MEASURED else ""
    name = f"{request.kind}_{pictures.name_of(request)}{method}{workdir.marked(request.weights)}"
    out = request.out or models.home(request.workdir) / "edits" / f"{name}_seed{request.seed}_at{run.step}.png"
    _check_output(out, request.overwrite)
    edited = edit(run, request)
    out.parent.mkdir(parents=True, exist_ok=True)
    provenance = workdir.provenance(request.workdir, run, edit=request.picture_options())
    if out.suffix == ".npz":
        figures.save_npz(out, [edited.results], request.num, None, provenance)
    else:
        row = np.concatenate(edited[:3])
        figures.save_png(out, figures.grid(row, columns=len(row)), provenance)
    return f"{request.num} results of {request.kind}{edited.note} in {out}"


def edit(run: Run, request: EditRequest) -> Edited:
    """The results of the request, decoded, with what they were made of."""
    data, encoding = run.experiment.data, run.experiment.encoding
    shape = data.image_shape
    encode_key, noise_key = keys(request.seed, 2, purpose=EVALUATE)

    def encoded(images: np.ndarray) -> Array:
        return encoding.encode(jax.random.split(encode_key, len(images)), jnp.asarray(images))

    def decoded(x_0: Array) -> np.ndarray:
        return np.asarray(encoding.decode(x_0))

    if request.kind not in MEASURED:
        x_0 = encoded(pictures.given(request, data, shape))
        results = editing.interpolate(run, request, x_0) if len(x_0) == 2 else editing.sdedit(run, request, x_0[0])
        return Edited(decoded(x_0[:1]), decoded(results), decoded(x_0[1:]))
    measured, unknown = _problem(request, shape)
    if request.measured:
        y = _as_measured(encoded(pictures.given(request, data, _read_shape(request, measured)))[0], measured)
        original = np.zeros((0, *shape), np.uint8)
    else:
        x_0 = encoded(pictures.given(request, data, shape))
        y, original = measured.observe(noise_key[None], x_0)[0], decoded(x_0)
    drawn = editing.restore(run, request, measured, y)
    size = drawn.effective
    note = "" if size is None else f" (smallest effective sample size {size:.1f} of {request.particles})"
    return Edited(decoded(_as_picture(y, measured, unknown)[None]), decoded(drawn.x_0), original, note)


def _problem(request: EditRequest, shape: tuple[int, ...]) -> tuple[LinearMeasurement, np.ndarray | None]:
    """The measurement, and for inpaint the part that is missing."""
    empty = pictures.missing(request, shape) if request.kind == "inpaint" else None
    height, width, channels = shape
    return editing.measurement(request, (height, width, channels), empty), empty


def _read_shape(request: EditRequest, measured: LinearMeasurement) -> tuple[int, ...]:
    """The shape of an image that is the measurement itself."""
    if request.kind == "inpaint":
        return measured.shape
    return jax.eval_shape(measured.forward, jax.ShapeDtypeStruct(measured.shape, jnp.float32)).shape


def _as_measured(image: Array, measured: LinearMeasurement) -> Array:
    """y, from an image that is the measurement itself; of one to be filled in, the known pixels."""
    y = jax.eval_shape(measured.forward, jax.ShapeDtypeStruct(measured.shape, jnp.float32))
    return image if image.shape == y.shape else measured.forward(image)


def _as_picture(y: Array, measured: LinearMeasurement, empty: np.ndarray | None) -> Array:
    """The measurement as an image of the run's size."""
    if empty is not None:
        return jnp.where(empty, 0.0, measured.transpose(y))
    large = [side // small for side, small in zip(measured.shape, y.shape, strict=True)]
    return y.repeat(large[0], axis=0).repeat(large[1], axis=1).repeat(large[2], axis=2)


def check(request: EditRequest) -> None:
    """Raises ValueError for numbers out of range, for options of other kinds, and for methods of inpaint elsewhere."""
    for name in ("num", "iterations", "particles", "jump", "resamples"):
        if getattr(request, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(request, name)}")
    check_kind(request)
    check_seed(request.seed)
    if request.method in ("replacement", "repaint") and request.kind != "inpaint":
        raise ValueError(f"--method {request.method} applies to inpaint, not to {request.kind}: choose mmps")
    if request.method == "twisted" and request.sampler not in (None, "ancestral"):
        raise ValueError(f"--method twisted needs --sampler ancestral, got {request.sampler}")


def check_run(request: EditRequest, run: Run) -> None:
    """Raises ValueError unless the run is of images, Gaussian, and has the class of the request."""
    shape, classes = run.experiment.data.image_shape, run.experiment.num_classes
    if len(shape) != 3 or run.experiment.data.levels is None:
        raise ValueError(f"edit needs images, and the data of this run have shape {shape}")
    run.experiment.process.require_gaussian("edit")
    if request.label is not None and classes is None:
        raise ValueError(f"--label {request.label}: leave it out, this run is not class-conditional")
    if request.label is not None and classes is not None and not 0 <= request.label < classes:
        raise ValueError(f"--label {request.label}: the classes are 0 to {classes - 1}")


def _check_output(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless the results may be written to `out`."""
    if out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out {out}: end it in .png (a row of pictures) or in .npz")
    if out.is_dir() or (out.exists() and not overwrite):
        raise ValueError(f"{out} exists: choose another name with --out, or replace it with --overwrite")
