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


class Output(NamedTuple):
    """A grid (.png), an .npz, or a folder of PNGs."""

    path: Path
    provenance: dict[str, Any]
    """What determines the images."""
    overwrite: bool = False
    """Whether an output of the same kind may be replaced."""

    @property
    def part(self) -> Path:
        """The folder beside the output that keeps its images while they are drawn; the same request finds it again."""
        name = zlib.crc32(json.dumps(self.provenance, sort_keys=True).encode())
        return self.path.with_name(f"{self.path.name}.{name:08x}.part")

    def holds_images(self) -> bool:
        """Whether the output exists and holds these very images."""
        whole = not self.path.is_dir() or len(list(self.path.glob("*.png"))) == self.provenance["num"]
        return self.path.exists() and whole and figures.provenance_of(self.path) == self.provenance


def write(output: Output, draws: Draws, reporter: Reporter) -> None:
    """Draws what an interrupted call with the same provenance has not drawn yet, and writes the output as a whole.

    Raises ValueError for a name with an unknown ending, an output that may not be replaced, and one that another
    process is drawing.
    """
    fill = _kind(output.path)
    check_replaceable(output)
    output.part.mkdir(parents=True, exist_ok=True)
    with locked(output.part / ".lock"):
        fill(output, draws, reporter)


def discard_part(output: Output) -> None:
    """Removes what a process kept that was killed after it had written the output."""
    shutil.rmtree(output.part, ignore_errors=True)


def _kind(path: Path):
    """The function that writes a file of this name. Raises ValueError for an unknown ending."""
    kinds = {".png": _grid, ".npz": _npz, "": _folder}
    if path.suffix not in kinds:
        raise ValueError(f"--out {path}: end it in .png (a grid), in .npz, or in nothing (a folder of PNGs)")
    return kinds[path.suffix]


def check_name(path: Path, images: bool) -> None:
    """Raises ValueError for a name with an unknown ending, or for a folder of PNGs of samples that are not images."""
    if _kind(path) is _folder and not images:
        raise ValueError(f"--out {path}: the samples of this run are not images: choose a name ending in .npz or .png")


def _grid(output: Output, draws: Draws, reporter: Reporter) -> None:
    images = np.concatenate(list(kept(draws, output.part, reporter)))
    check_replaceable(output)
    figures.save_png(output.path, figures.picture(images), output.provenance)
    discard_part(output)


def _npz(output: Output, draws: Draws, reporter: Reporter) -> None:
    for _ in kept(draws, output.part, reporter):  # first, so that no time is lost if the disk is full in the end
        pass
    check_replaceable(output)
    batches = kept(draws, output.part, Reporter())
    figures.save_npz(output.path, batches, draws.num, draws.labels, output.provenance)
    discard_part(output)


def _folder(output: Output, draws: Draws, reporter: Reporter) -> None:
    for first in reporter.track(draws.firsts, "image", draws.firsts.step):
        numbers = range(first, min(first + draws.firsts.step, draws.num))
        paths = [output.part / f"{number:06d}.png" for number in numbers]
        if not all(path.exists() for path in paths):
            for path, image in zip(paths, draws.at(first), strict=True):
                figures.save_png(path, image, output.provenance)
    check_replaceable(output)
    (output.part / ".lock").unlink()
    for left in output.part.glob("*.part"):  # by a process that was killed while it wrote
        left.unlink()
    put_folder(output.part, output.path)


def check_replaceable(output: Output) -> None:
    """Raises ValueError unless the output is free or may be replaced: with `overwrite`, and only by one of its kind.

    A folder must hold nothing but images of this library.
    """
    path = output.path
    if not path.exists():
        return
    if not output.overwrite:
        raise ValueError(f"--out {path} exists and holds something else: choose another name, or --overwrite")
    if path.is_dir() != (path.suffix == ""):
        raise ValueError(f"--out {path} is a {'folder' if path.is_dir() else 'file'}: choose another name")
    if path.is_dir() and not (all(each.suffix == ".png" for each in path.iterdir()) and figures.provenance_of(path)):
        raise ValueError(f"--out {path} is a folder with other things, and is not replaced: choose another name")
