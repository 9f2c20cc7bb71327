"""What samples are compared with: a split of a data set, images on disk, or a file of statistics."""

import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.data import Data
from ddpm_jax.data.image_set import image_set
from ddpm_jax.data.tfds import images_of
from ddpm_jax.metrics.statistics import Statistics, read_statistics
from ddpm_jax.runs import experiment_files, models, workdir
from ddpm_jax.runs.checks import data_identity
from ddpm_jax.runs.features import Features
from ddpm_jax.runs.records import differences


class Reference(NamedTuple):
    """What samples are compared with."""

    name: str
    data: Data | None
    """The images; None for a file that has statistics only."""
    splits: bool = False
    """Whether the images have a training and a test split; otherwise each split is all of them."""
    statistics: Statistics | None = None
    """The moments of features of the images, from a file."""
    workdir: Path | None = None
    """The workdir of the run whose data these are."""
    is_own: bool = False
    """Whether these are the data of the run that is measured."""
    digest: str | None = None
    """The SHA-256 of the file of statistics."""

    def identity(self, split: str) -> str:
        """What identifies the images of a split, or the file of statistics."""
        if self.digest is not None:
            return self.digest
        return data_identity(self.images, split)["digest"]

    @property
    def images(self) -> Data:
        """The images. Raises ValueError for a file that has statistics only."""
        if self.data is None:
            raise ValueError(f"{self.name} has statistics and no images")
        return self.data

    @property
    def made(self) -> Mapping[str, Any]:
        """What made the statistics of the file, as far as it is stated."""
        return {} if self.statistics is None else self.statistics.made or {}

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape of the images; None where a file of statistics does not state it."""
        if self.data is not None:
            return tuple(self.data.image_shape)
        stated = self.made.get("image_shape")
        return None if stated is None else tuple(stated)


def of_run(folder: Path, data: Data) -> Reference:
    """The data of the run in a workdir."""
    return Reference(data.name, data, splits=True, workdir=folder)


def named(source: str, channels: int = 3) -> Reference:
    """The reference of this name. The first of these that exists:

    a workdir, for the data of its run; an .npz of statistics (mu and sigma), of images (arr_0) or of both; a folder or
    zip of pictures of one size, which get `channels` channels; an experiment, shipped or a file, for its data; a TFDS
    data set that is prepared. Raises ValueError or FileNotFoundError if there is none, or if it cannot be read.
    """
    path, shipped = Path(source).expanduser(), source.removesuffix(".py") in experiment_files.shipped()
    if workdir.is_workdir(path):
        return of_run(path, workdir.read(path).data)
    if path.suffix == ".npz":
        return _of_npz(path)
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return Reference(source, image_set(path, channels))
    if path.is_file() or shipped:
        function = experiment_files.read(experiment_files.find(source))
        data = experiment_files.build(function, experiment_files.defaults(function)).data
    else:
        data = _in_tfds(source)
    return Reference(data.name, data, splits=True)


def _of_npz(path: Path) -> Reference:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    status = path.stat()
    return _read_npz(path, (status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)  # several steps and metrics of a command need it, and the file may be large
def _read_npz(path: Path, stamp: tuple[int, int]) -> Reference:
    """The reference in the file, whose size and time of change are the stamp."""
    names: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    if not {"mu.npy", "sigma.npy"} <= names:
        return Reference(str(path), image_set(path))
    data = image_set(path) if "arr_0.npy" in names else None
    return Reference(str(path), data, statistics=read_statistics(path), digest=models.sha256(path))


def _in_tfds(name: str) -> Data:
    try:
        return images_of(name)
    except ValueError as error:
        raise ValueError(f"there is no file, folder or experiment {name!r}, and {error}") from None


def check_features(reference: Reference, features: str | Path) -> None:
    """Raises ValueError if the file of statistics has other features than those of this name. It needs no weights."""
    made = reference.made.get("features")
    if made is not None and made != features and not isinstance(features, Path):
        raise ValueError(f"--reference {reference.name} has statistics of --features {made}, not {features}")


def check_statistics(reference: Reference, features: Features, image_shape: tuple[int, ...], spatial: bool) -> None:
    """Raises ValueError if samples of this shape cannot be compared with the statistics of the file by these features.

    What a file does not state cannot be checked. `spatial`: whether the moments for sFID are needed, too.
    """
    if reference.statistics is None:
        return
    where, protocol = f"--reference {reference.name}", dict(features.protocol)
    made = {name: reference.made.get(name) for name in protocol}
    if reference.made and (differs := differences(made, protocol)):
        raise ValueError(f"{where} has statistics of another protocol, {differs}: make another by ddpm-jax reference")
    dims, found = _dims(features, image_shape), len(reference.statistics.pool.mean)
    if dims != found:
        raise ValueError(f"{where} has statistics of {found} features, but {features.protocol['features']} are {dims}")
    if spatial and reference.statistics.spatial is None:
        raise ValueError(
            f"{where} has no mu_s and sigma_s for --metrics sfid: ddpm-jax reference makes a file with them"
        )


def _dims(features: Features, image_shape: tuple[int, ...]) -> int:
    image: Any = jax.ShapeDtypeStruct((1, *image_shape), jnp.uint8)
    found: Any = jax.eval_shape(features.extractor, image)
    return getattr(found, "pool", found).shape[-1]


def described(reference: Reference) -> str:
    """The reference images of a file of statistics in words, such as "1,437 train images of digits.npz"."""
    count = None if reference.statistics is None else reference.statistics.pool.count
    split = f"{reference.made['split']} " if "split" in reference.made else ""
    number = "statistics" if count is None else f"{count:,} {split}images"
    return f"{number} of {reference.name}"


def about(reference: Reference, split: str, num: int) -> dict[str, Any]:
    """What identifies the first `num` images of a split, for a protocol."""
    named = {"data": reference.name} | ({"split": split} if reference.splits else {})
    return named | {"reference": num, "data_digest": reference.identity(split)[:16]}


def stated(reference: Reference) -> dict[str, Any]:
    """What identifies the images that a file of statistics was made from, for a protocol."""
    if {"data", "reference", "data_digest"} <= reference.made.keys():
        return {
            name: reference.made[name]
            for name in ("data", "split", "reference", "data_digest")
            if name in reference.made
        }
    return {"data": Path(reference.name).name, "statistics_sha256": (reference.digest or "")[:16]}
