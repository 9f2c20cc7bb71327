"""Outputs of samples: a grid, an npz, or a folder of PNGs, filled batch by batch so that an interrupted one resumes."""

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import figures
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.files import put_folder, whole_file
from ddpm_jax.system.locks import locked


class Draws(NamedTuple):
    """Samples that are drawn in batches."""

    firsts: range
    """The number of the first image of each batch."""
    at: Callable[[int], np.ndarray]
    """``at(first)`` -> the images of the batch that begins with this number, such as uint8 [batch, h, w, channels]."""
    num: int
    """The number of images in all batches."""
    labels: np.ndarray | None
    """The label of each image, int32 [num]; None for an unconditional run."""


def kept(draws: Draws, folder: Path, reporter: Reporter) -> Iterator[np.ndarray]:
    """Yields the batches, and keeps each in `folder` as it is drawn; a batch that lies there is read instead."""
    for first in reporter.track(draws.firsts, "image", draws.firsts.step):
        path = folder / f"{first:09d}_{draws.firsts.step}.npy"
        images = _read(path)
        if images is None:
            images = draws.at(first)
            folder.mkdir(parents=True, exist_ok=True)  # again: the same measurement elsewhere may have ended
            with whole_file(path) as part, part.open("wb") as file:
                np.save(file, images)
        yield images


def _read(path: Path) -> np.ndarray | None:
    try:
        return np.load(path)
    except (OSError, EOFError, ValueError):
        return None


def write(out: Path, draws: Draws, provenance: dict[str, Any], overwrite: bool, reporter: Reporter) -> None:
    """Draws what an interrupted call with the same provenance has not drawn yet, and writes the output as a whole.

    Raises ValueError for a name with an unknown ending, an output that may not be replaced, and one that another
    process is drawing.
    """
    fill = _kind(out)
    check_replaceable(out, overwrite)
    part = _part(out, provenance)
    part.mkdir(parents=True, exist_ok=True)
    with locked(part / ".lock"):
        fill(out, part, draws, provenance, overwrite, reporter)


def discard_part(out: Path, provenance: dict[str, Any]) -> None:
    """Removes what a process kept that was killed after it had written the output."""
    shutil.rmtree(_part(out, provenance), ignore_errors=True)


def _part(out: Path, provenance: dict[str, Any]) -> Path:
    """The folder beside the output that keeps its images while they are drawn."""
    return out.with_name(f"{out.name}.{_name(provenance)}.part")


def _name(provenance: dict[str, Any]) -> str:
    """A short name for these images, by which the same request finds them."""
    return f"{zlib.crc32(json.dumps(provenance, sort_keys=True).encode()):08x}"


def _kind(out: Path):
    """The function that writes a file of this name. Raises ValueError for an unknown ending."""
    kinds = {".png": _grid, ".npz": _npz, "": _folder}
    if out.suffix not in kinds:
        raise ValueError(f"--out {out}: end it in .png (a grid), in .npz, or in nothing (a folder of PNGs)")
    return kinds[out.suffix]


def check_name(out: Path, images: bool) -> None:
    """Raises ValueError for a name with an unknown ending, or for a folder of PNGs of samples that are not images."""
    if _kind(out) is _folder and not images:
        raise ValueError(f"--out {out}: the samples of this run are not images: choose a name ending in .npz or .png")


def _grid(out: Path, part: Path, draws: Draws, provenance: dict[str, Any], overwrite: bool, reporter: Reporter) -> None:
    images = np.concatenate(list(kept(draws, part, reporter)))
    check_replaceable(out, overwrite)
    figures.save_png(out, figures.picture(images), provenance)
    shutil.rmtree(part)


def _npz(out: Path, part: Path, draws: Draws, provenance: dict[str, Any], overwrite: bool, reporter: Reporter) -> None:
    for _ in kept(draws, part, reporter):  # first, so that no time is lost if the disk is full in the end
        pass
    check_replaceable(out, overwrite)
    figures.save_npz(out, kept(draws, part, Reporter()), draws.num, draws.labels, provenance)
    shutil.rmtree(part)


def _folder(
    out: Path, part: Path, draws: Draws, provenance: dict[str, Any], overwrite: bool, reporter: Reporter
) -> None:
    for first in reporter.track(draws.firsts, "image", draws.firsts.step):
        numbers = range(first, min(first + draws.firsts.step, draws.num))
        paths = [part / f"{number:06d}.png" for number in numbers]
        if not all(path.exists() for path in paths):
            for path, image in zip(paths, draws.at(first), strict=True):
                figures.save_png(path, image, provenance)
    check_replaceable(out, overwrite)
    (part / ".lock").unlink()
    for left in part.glob("*.part"):  # by a process that was killed while it wrote
        left.unlink()
    put_folder(part, out)


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises ValueError unless `out` is free or may be replaced: with `overwrite`, and only by an output of its kind.

    A folder must hold nothing but images of this library.
    """
    if not out.exists():
        return
    if not overwrite:
        raise ValueError(f"--out {out} exists and holds something else: choose another name, or --overwrite")
    if out.is_dir() != (out.suffix == ""):
        raise ValueError(f"--out {out} is a {'folder' if out.is_dir() else 'file'}: choose another name")
    if out.is_dir() and not (all(path.suffix == ".png" for path in out.iterdir()) and figures.provenance_of(out)):
        raise ValueError(f"--out {out} is a folder with other things, and is not replaced: choose another name")


def holds(out: Path, provenance: dict[str, Any]) -> bool:
    """Whether the output exists and holds these very images."""
    whole = not out.is_dir() or len(list(out.glob("*.png"))) == provenance["num"]
    return out.exists() and whole and figures.provenance_of(out) == provenance
