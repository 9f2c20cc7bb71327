"""A folder or zip of image files, of any size and format, as a data set."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from ddpm_jax.data.dataset import Data, Example
from ddpm_jax.data.decode import decode

ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def folder(path: str, image_shape: tuple[int, int, int], test_percent: int = 0) -> Data:
    """The images in a folder with its subfolders, or in a zip, cropped in the centre and resized to `image_shape`.

    `image_shape` is (height, width, channels). About `test_percent` percent of the images, chosen by a hash of the file
    name, form the test split; the others form the training split. Nothing is read before a split is opened. Opening
    raises FileNotFoundError if the path is neither a folder nor a zip, and ValueError if it has no image for the split.
    """
    return Data(name=path, image_shape=image_shape, open=partial(_open, path, image_shape, test_percent))


def _open(path: str, image_shape: tuple[int, int, int], test_percent: int, split: str) -> "_Images":
    root = Path(path).expanduser()
    if not (root.is_dir() or (root.is_file() and zipfile.is_zipfile(root))):
        raise FileNotFoundError(f"{path} is neither a folder nor a zip: give one with images")
    chosen = [name for name in _names(root) if (zlib.crc32(name.encode()) % 100 < test_percent) == (split == "test")]
    if not chosen:
        endings = ", ".join(sorted(ENDINGS))
        raise ValueError(f"{path} has no image for the {split} split ({test_percent} % are for test; reads {endings})")
    return _Images(root, tuple(chosen), image_shape, zipped=root.is_file())


def _names(root: Path) -> list[str]:
    """The paths of the image files relative to the root, sorted; without hidden files and macOS's zip metadata."""
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


@lru_cache(8)  # once per process: a large archive takes long to open; concurrent reads are safe
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@dataclass(frozen=True)
class _Images(Sequence):
    """A random-access source that decodes each image when it is read."""

    root: Path
    names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    zipped: bool
    """Whether the root is a zip."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        name = self.names[index]
        try:
            encoded = _archive(self.root).read(name) if self.zipped else (self.root / name).read_bytes()
            return {"image": decode(encoded, self.image_shape, fit=True)}
        except (ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{self.root / name} {error}") from None
