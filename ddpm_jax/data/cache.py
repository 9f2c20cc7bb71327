"""Decoded pixels in the user's cache folder, checked by a digest: what is damaged there is decoded again."""

import contextlib
import hashlib
import math
import os
import uuid
from pathlib import Path

import numpy as np

LARGEST = 2**30
"""The size in bytes up to which the pixels of a split are kept."""
CAPACITY = 4 * LARGEST
"""The size in bytes up to which the cache grows; then the files that were not used for longest are deleted."""
DIGEST_BYTES = hashlib.sha256().digest_size


def folder() -> Path:
    """``ddpm_jax/pictures`` in ``$XDG_CACHE_HOME``, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddpm_jax" / "pictures"


def fits(shape: tuple[int, ...]) -> bool:
    """Whether an array of bytes of this shape is small enough to be kept."""
    return math.prod(shape) <= LARGEST


def find(key: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array that was kept under this key, uint8 of this shape; None if there is none, or it is damaged."""
    path = folder() / key
    try:
        if path.stat().st_size != DIGEST_BYTES + math.prod(shape):
            return None
        content = np.fromfile(path, np.uint8)
        if content[:DIGEST_BYTES].tobytes() != _digest(key, content[DIGEST_BYTES:]):
            return None
        os.utime(path)  # used now
    except OSError:
        return None
    return content[DIGEST_BYTES:].reshape(shape)


def keep(key: str, array: np.ndarray) -> None:
    """Keeps an array of bytes under this key, whole or not at all. A folder that cannot be written does no harm."""
    part = folder() / f"{key}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        array = np.ascontiguousarray(array, np.uint8)
        with part.open("wb") as file:
            file.write(_digest(key, array))
            file.write(array.data)
        os.replace(part, part.with_name(key))
        _trim(part.parent)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()


def _digest(key: str, array: np.ndarray) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(array.reshape(-1).data)
    return digest.digest()


def _trim(folder: Path) -> None:
    """Deletes the files that were not used for longest, until the others fit into the capacity."""
    total = 0
    for status, path in sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda each: -each[0].st_mtime):
        total += status.st_size
        if total > CAPACITY:
            path.unlink()
