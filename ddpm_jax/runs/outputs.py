"""Outputs of samples: a grid, an npz, or a folder of PNGs, filled chunk by chunk so that an interrupted one resumes."""

import json
import shutil
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import figures
from ddpm_jax.runs.chunks import Result, Work, keep, results, share
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.files import put_folder
from ddpm_jax.system.locks import locked
from ddpm_jax.training import distributed


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


def write(output: Output, draws: Work, labels: np.ndarray | None, reporter: Reporter) -> None:
    """Draws what an interrupted call with the same provenance has not drawn yet, and writes the output as a whole.

    The results of `draws` are {"images": [chunk, ...]}; `labels` are those of all images, int32, or None. Every process
    must call this function: each draws its share, and process 0 writes the output. Raises ValueError for a name with
    an unknown ending, an output that may not be replaced, one that another command is drawing, and a folder that not
    all processes share.
    """
    kind = _kind(output.path)
    refusal = f"process 0 cannot write {output.path}"
    with ExitStack() as stack:
        with distributed.all_or_none(refusal):
            if distributed.is_leader():
                check_replaceable(output)
                output.part.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(output.part / ".lock"))
        if not distributed.agree(output.part.is_dir()):
            raise ValueError(f"--out {output.path}: choose a folder that all processes share")
        kind.draw(output, draws, reporter)
        with distributed.all_or_none(refusal):  # the other processes wait: JAX ends all of them with the first
            if distributed.is_leader():
                check_replaceable(output)
                kind.finish(output, draws, labels)


def discard_part(output: Output) -> None:
    """Removes what a process kept that was killed after it had written the output."""
    shutil.rmtree(output.part, ignore_errors=True)


class Kind(NamedTuple):
    """How outputs of a kind are made."""

    draw: Callable[[Output, Work, Reporter], None]
    """Draws what is missing into the part of the output; called in every process."""
    finish: Callable[[Output, Work, np.ndarray | None], None]
    """Writes the output, and removes its part; called in process 0."""


def _kind(path: Path) -> Kind:
    """The kind of an output of this name. Raises ValueError for an unknown ending."""
    kinds = {".png": Kind(_keep, _grid), ".npz": Kind(_keep, _npz), "": Kind(_keep_pictures, _folder)}
    if path.suffix not in kinds:
        raise ValueError(f"--out {path}: end it in .png (a grid), in .npz, or in nothing (a folder of PNGs)")
    return kinds[path.suffix]


def check_name(path: Path, images: bool) -> None:
    """Raises ValueError for a name with an unknown ending, or for a folder of PNGs of samples that are not images."""
    _kind(path)
    if path.suffix == "" and not images:
        raise ValueError(f"--out {path}: the samples of this run are not images: choose a name ending in .npz or .png")


def _keep(output: Output, draws: Work, reporter: Reporter) -> None:
    keep(draws, output.part, reporter)


def _grid(output: Output, draws: Work, labels: np.ndarray | None) -> None:
    images = np.concatenate([result["images"] for result in results(draws, output.part)])
    figures.save_png(output.path, figures.picture(images), output.provenance)
    discard_part(output)


def _npz(output: Output, draws: Work, labels: np.ndarray | None) -> None:
    batches = (result["images"] for result in results(draws, output.part))
    figures.save_npz(output.path, batches, draws.num, labels, output.provenance)
    discard_part(output)


def _keep_pictures(output: Output, draws: Work, reporter: Reporter) -> None:
    def paths(first: int) -> list[Path]:
        return [output.part / f"{n:06d}.png" for n in range(first, min(first + draws.size, draws.num))]

    def put(first: int, result: Result) -> None:
        for path, image in zip(paths(first), result["images"], strict=True):
            figures.save_png(path, image, output.provenance)

    share(draws, lambda first: all(path.exists() for path in paths(first)), put, reporter)


def _folder(output: Output, draws: Work, labels: np.ndarray | None) -> None:
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
