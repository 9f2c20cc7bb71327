"""Files and folders that are written as a whole or not at all."""

import contextlib
import json
import os
import re
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` after the block; an exception leaves `target` as it was.

    The content is on the disk before the new name is. Links are followed and the mode of an existing file is kept. A
    device or a pipe, such as /dev/stdout, receives the content after the block. Raises ValueError as `check_writable`
    does.
    """
    check_writable(target)
    if _is_device(target):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "content"
            with (Path(folder) / "content").open("rb") as content, target.open("ab") as device:
                shutil.copyfileobj(content, device)
        return
    target = target.resolve()
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.touch()
        if target.exists():
            part.chmod(stat.S_IMODE(target.stat().st_mode))
        yield part
        _to_disk(part)
        os.replace(part, target)
        _names_to_disk(target.parent)
    finally:
        part.unlink(missing_ok=True)


def check_writable(target: Path) -> None:
    """Raises ValueError if `target` is a folder, or lies in a folder that does not exist."""
    if target.is_dir():
        raise ValueError(f"{target} is a folder: give the name of a file")
    if not target.resolve().parent.is_dir() and not _is_device(target):
        raise ValueError(f"there is no folder {target.resolve().parent} for {target.name}: create it first")


def _is_device(path: Path) -> bool:
    # standard output may be a regular file that the shell holds open: a file renamed to it would replace its content
    opened = re.match(r"/dev/(stdout|stderr|fd/\d+)$|/proc/(self|\d+)/fd/\d+$", str(path.absolute()))
    return opened is not None or (path.exists() and not path.is_file())


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names_to_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot, and the file itself is on the disk already
        _to_disk(folder)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, renamed to `target` after the block; an exception leaves `target` as it was.

    If `target` is a link to a folder, that folder is replaced, and the link stays.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        put_folder(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_folder(part: Path, target: Path) -> None:
    """Renames the folder `part` to `target`; a folder with this name is removed once the new one has its name."""
    target = target.resolve()
    for path in part.rglob("*"):
        (_names_to_disk if path.is_dir() else _to_disk)(path)
    old = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        target.rename(old)
    part.rename(target)
    _names_to_disk(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError naming the file if it is no JSON, OSError if it cannot be read."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it cannot be read as JSON: {error}") from None


def write_json(path: Path, content: Any) -> None:
    """Writes the content as JSON, as a whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
