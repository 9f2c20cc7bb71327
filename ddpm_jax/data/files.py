"""The picture files in a folder with its subfolders, or in a zip: found, counted, and read one by one."""

import errno
import os
import stat
import zipfile
from collections import Counter, deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ddpm_jax.data.decode import endings

LARGEST = 2**30
"""The size in bytes up to which a file is read."""
BOMB_SIZE, BOMB_RATIO = 2**24, 100
"""A zip entry that is larger, and is compressed further than pictures can be, is taken for a zip bomb."""
METHODS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
    getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED),  # since Python 3.14
}
"""The compression methods that Python can read."""
UNPACK = "unpack the zip and give the folder"


class File(NamedTuple):
    """A picture file, not yet opened."""

    name: str
    """The path relative to the folder or in the zip, with slashes."""
    size: int
    """The size of the content in bytes."""
    stamp: tuple[int, ...]
    """Numbers that change when the content changes: times of a file, the checksum of a zip entry."""
    problem: str = ""
    """Why the file cannot be read, as the rest of a sentence that begins with its name; empty if nothing is known."""


class Found(NamedTuple):
    """What a folder or zip holds."""

    files: tuple[File, ...]
    """The picture files, sorted by name."""
    left_out: Counter[str]
    """The number of other files by kind: an ending such as ".txt", "hidden", "broken link", ..."""


def find(root: Path) -> Found:
    """The picture files in this folder or zip, by their endings, and the number of files that are left out.

    Links are followed; a folder that several links reach is listed once. Files and folders whose names begin with a
    dot, and the metadata that macOS adds to zips, are left out. Raises FileNotFoundError if the root is neither a
    folder nor a zip, and ValueError for a folder or zip that cannot be read.
    """
    if not (root.is_dir() or (root.is_file() and zipfile.is_zipfile(root))):
        raise FileNotFoundError(f"{root} is neither a folder nor a zip: give one with images")
    left_out: Counter[str] = Counter()
    found = _in_zip(root, left_out) if root.is_file() else _in_folder(root, left_out)
    files = sorted(file for file in found if _is_picture(file.name, left_out))
    return Found(tuple(files), left_out)


def read(root: Path, file: File) -> bytes:
    """The content of a file. Raises ValueError if it is damaged in the zip, and OSError if the disk fails."""
    if file.problem:
        raise ValueError(file.problem)
    if not root.is_file():
        return (root / file.name).read_bytes()
    try:
        return _archive(root).read(file.name)
    except Exception as error:  # zipfile and its decompressors have no common error
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a damaged offset causes
            raise
        raise ValueError(f"cannot be read: {error}") from None


def _is_picture(name: str, left_out: Counter[str]) -> bool:
    """Whether the file's ending is that of a picture. Counts the file otherwise."""
    ending = os.path.splitext(name)[1].lower()
    if ending in endings():
        return True
    left_out[ending or "without ending"] += 1
    return False


def _in_folder(root: Path, left_out: Counter[str]) -> Iterator[File]:
    """All files in the folder and its subfolders. Links to folders come last, so that a loop adds nothing."""
    visited, pending, links = set(), deque([("", str(root))]), deque()
    while pending or links:
        prefix, path = (pending or links).popleft()
        identity = os.stat(path)
        if (identity.st_dev, identity.st_ino) in visited:
            left_out["repeated link"] += 1
            continue
        visited.add((identity.st_dev, identity.st_ino))
        for entry in _entries(path):
            name, status = prefix + entry.name, _status(entry)
            if _is_hidden(entry.name):
                left_out["hidden"] += 1
            elif status is None:
                left_out["broken link" if entry.is_symlink() else "unreadable"] += 1
            elif stat.S_ISDIR(status.st_mode):
                (links if entry.is_symlink() else pending).append((name + "/", entry.path))
            elif stat.S_ISREG(status.st_mode):
                stamp = (status.st_mtime_ns, status.st_ctime_ns)
                yield File(name, status.st_size, stamp, _too_large(status.st_size))
            else:
                left_out["special file"] += 1


def _entries(path: str) -> list[os.DirEntry]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{path} cannot be listed: {error.strerror}") from None


def _status(entry: os.DirEntry) -> os.stat_result | None:
    """The status of what the entry, or the link, leads to; None if it leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return None


def _in_zip(root: Path, left_out: Counter[str]) -> Iterator[File]:
    """All files in the zip. Hidden folders count once, as in a folder."""
    hidden = set()
    # a name may occur twice: the last entry counts, which is the one that zipfile reads
    for name, entry in {entry.filename: entry for entry in _archive(root).infolist()}.items():
        parts = PurePosixPath(name).parts
        first_hidden = next((n for n, part in enumerate(parts) if _is_hidden(part)), None)
        if first_hidden is not None:
            hidden.add(parts[: first_hidden + 1])
        elif stat.S_ISLNK(entry.external_attr >> 16):
            left_out["link in a zip"] += 1
        elif not entry.is_dir():
            yield File(name, entry.file_size, (entry.CRC,), _problem(entry))
    left_out.update({"hidden": len(hidden)} if hidden else {})


def _problem(entry: zipfile.ZipInfo) -> str:
    """Why the zip entry cannot be read, or should not."""
    if entry.flag_bits & 1:
        return f"is encrypted: {UNPACK}"
    if entry.compress_type not in METHODS:
        name = "Deflate64" if entry.compress_type == 9 else f"method {entry.compress_type}"
        return f"is compressed by {name}, which Python cannot read: {UNPACK}"
    if entry.file_size > max(BOMB_SIZE, BOMB_RATIO * entry.compress_size):
        return f"expands {entry.file_size // max(1, entry.compress_size):,}-fold, as in a zip bomb: {UNPACK}"
    return _too_large(entry.file_size)


def _too_large(size: int) -> str:
    limit = f"more than the {LARGEST / 2**30:g} GiB that are read: save it in a smaller size"
    return f"has {size / 2**30:.1f} GiB, {limit}" if size > LARGEST else ""


def _is_hidden(part: str) -> bool:
    return part.startswith((".", "__MACOSX"))


def _archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    return _opened(path, status.st_mtime_ns, status.st_size)


@lru_cache(8)  # a large archive takes long to open; concurrent reads are safe
def _opened(path: Path, modified: int, size: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a zip: {error}") from None
