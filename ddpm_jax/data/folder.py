"""A folder or zip of pictures, of any size and kind, as a data set."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from ddpm_jax.data.dataset import Data, Example
from ddpm_jax.data.pixels import decode

ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def folder(path: str, image_shape: tuple[int, int, int], test_percent: int = 0) -> Data:
    """The pictures in a folder, its subfolders included, or in a zip; each cropped in the middle and resized as needed.

    About `test_percent` of them, chosen by their names alone, are the test split; the rest trains. Nothing is looked up
    before a split is opened. Opening raises FileNotFoundError if there is no such folder or zip, ValueError if it holds
    no picture for the split.
    """
    return Data(name=path, image_shape=image_shape, open=partial(_open, path, image_shape, test_percent))


def _open(path: str, image_shape: tuple[int, int, int], test_percent: int, split: str) -> "_Pictures":
    root = Path(path).expanduser()
    if not (root.is_dir() or (root.is_file() and zipfile.is_zipfile(root))):
        raise FileNotFoundError(f"{path} is no folder and no zip: name one that holds pictures")
    chosen = [name for name in _names(root) if (zlib.crc32(name.encode()) % 100 < test_percent) == (split == "test")]
    if not chosen:
        raise ValueError(f"{path} holds no picture for {split} ({test_percent} % are for test): {', '.join(ENDINGS)}")
    return _Pictures(root, tuple(chosen), image_shape, packed=root.is_file())


def _names(root: Path) -> list[str]:
    """Of the pictures, relative to the root; hidden ones, and what macOS adds to a zip, left out."""
    if root.is_dir():
        found = [PurePosixPath(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    else:
        found = [PurePosixPath(name) for name in _archive(root).namelist()]
    hidden = (".", "__MACOSX")
    return sorted(
        str(name)
        for name in found
        if name.suffix.lower() in ENDINGS and not any(part.startswith(hidden) for part in name.parts)
    )


@lru_cache(8)
def _archive(path: Path) -> zipfile.ZipFile:
    """Opened once a process: its table of contents may be long. Reading is safe from several threads."""
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class _Pictures(Sequence):
    root: Path
    names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    packed: bool
    """Whether the root is a zip."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        name = self.names[index]
        try:
            packed = _archive(self.root).read(name) if self.packed else (self.root / name).read_bytes()
            return {"image": decode(packed, self.image_shape, fit=True)}
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.root / name} {error}") from None
