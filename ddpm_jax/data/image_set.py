"""Sets of images as they are exchanged: an .npz of arrays, or a folder or zip of pictures of one size."""

import hashlib
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.data import files
from ddpm_jax.data.dataset import Data, Example, Listing
from ddpm_jax.data.decode import decode_as_it_is
from ddpm_jax.data.images import as_bytes


def image_set(path: Path, channels: int = 3) -> Data:
    """All images of an .npz (`arr_0`), or of a folder or zip of pictures, as they are: both splits are all of them.

    ``arr_0`` is uint8 [count, height, width, channels], as ``ddpm-jax sample --out FILE.npz`` and the programs of
    Dhariwal & Nichol 2021 write it. Where it is stored uncompressed it is not read into memory. Pictures come in the
    order of their names, with `channels` channels; they are neither cropped nor resized. The digest of the listing is
    the SHA-256 of the .npz file, or that of the names and contents of the pictures.

    Raises FileNotFoundError if there is no such file or folder, and ValueError if it has no such images. A picture that
    cannot be decoded, or whose size is not that of the first, is a ValueError when it is read.
    """
    source = _in_npz(path) if path.suffix == ".npz" else _in_folder(path, channels)

    def listing(track: Any = None) -> Listing:
        return Listing(f"{len(source):,} images in {path}", _digest(path, source.files))

    return Data(str(path), source.image_shape, open=lambda split: source, listing=listing)


@dataclass(frozen=True, eq=False)
class _Array(Sequence):
    """The images of an .npz file."""

    files: tuple[files.File, ...]
    images: np.ndarray

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {"image": np.asarray(self.images[index])}


def _in_npz(path: Path) -> _Array:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        images = _mapped(path)
    except (ValueError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no npz file: {error}") from None
    if images is None or images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise ValueError(f"{path} has no images: expected arr_0, uint8 [count, height, width, channels]")
    status = path.stat()
    return _Array((files.File(path.name, status.st_size, (status.st_mtime_ns, status.st_ctime_ns)),), images)


def _mapped(path: Path) -> np.ndarray | None:
    """The array `arr_0` of an npz file, mapped into memory unless it is compressed; None if there is none."""
    with zipfile.ZipFile(path) as archive:
        if "arr_0.npy" not in archive.namelist():
            return None
        entry = archive.getinfo("arr_0.npy")
        with archive.open(entry) as member:
            if entry.compress_type != zipfile.ZIP_STORED:
                return np.lib.format.read_array(member, allow_pickle=False)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[np.lib.format.read_magic(member)](member)
            header = member.tell()
    order = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", _first_byte(path, entry.header_offset) + header, shape, order)


def _first_byte(path: Path, header: int) -> int:
    """The position of the content of the zip entry whose local header begins at `header`."""
    with path.open("rb") as file:
        file.seek(header + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return header + 30 + name + extra


@dataclass(frozen=True, eq=False)
class _Pictures(Sequence):
    """Pictures of one size, each decoded when it is read."""

    root: Path
    files: tuple[files.File, ...]
    image_shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        file = self.files[index]
        image = _decoded(self.root, file, self.image_shape[-1])
        if image.shape != self.image_shape:
            (height, width), (first, second) = image.shape[:2], self.image_shape[:2]
            raise ValueError(
                f"{self.root / file.name} has {height}x{width} pixels, {self.files[0].name} {first}x{second}: pictures "
                "of several sizes are cropped and resized only as the data of a run or an experiment"
            )
        return {"image": image}


def _in_folder(root: Path, channels: int) -> _Pictures:
    found = files.find(root).files
    if not found:
        raise ValueError(f"{root} has no pictures")
    return _Pictures(root, found, _decoded(root, found[0], channels).shape)


def _decoded(root: Path, file: files.File, channels: int) -> np.ndarray:
    try:
        return decode_as_it_is(files.read(root, file), channels)
    except ValueError as error:
        raise ValueError(f"{root / file.name} {error}") from None


@lru_cache(maxsize=8)  # several metrics of a command need it; the stamps of the files are part of the key
def _digest(path: Path, of_files: tuple[files.File, ...]) -> str:
    if path.suffix == ".npz":
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    found = hashlib.sha256()
    for file in of_files:
        for part in (as_bytes(file.name), files.read(path, file)):
            found.update(hashlib.sha256(part).digest())
    return found.hexdigest()
