"""Files and folders that are written as a whole or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to, renamed to `target` after the block; an exception leaves `target` as it was."""
    part = target.with_name(target.name + ".part")
    yield part
    os.replace(part, target)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder to fill, renamed to `target` after the block; an exception leaves `target` as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    part.mkdir()
    try:
        yield part
        if target.exists():
            shutil.rmtree(target)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Writes the content as JSON, as a whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n")
