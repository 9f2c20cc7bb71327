"""The log of a run: numbers and pictures by step, as JSON lines and as TensorBoard events."""

import json
import math
import os
from pathlib import Path

import numpy as np


class Log:
    """Appends to ``metrics.jsonl`` and ``events/`` in `folder`; does nothing if `folder` is None. A context manager.

    A log that is opened at step n first drops the rows of later steps, since a resumed run computes them again.
    """

    def __init__(self, folder: Path | None, step: int):
        self._lines = self._events = None
        if folder is None:
            return
        from tensorboardX import SummaryWriter

        self._path = folder / "metrics.jsonl"
        _keep_rows(self._path, step)
        self._lines = self._path.open("a", buffering=1)
        self._events = SummaryWriter(str(folder / "events"), purge_step=step + 1 if step else None)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_) -> None:
        for opened in (self._lines, self._events):
            if opened is not None:
                opened.close()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one row of named numbers for this step, to ``metrics.jsonl`` and to the TensorBoard events.

        JSON has no numbers that are not finite: they become null.
        """
        if self._lines is None or self._events is None:
            return
        row = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, **row}, allow_nan=False) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes a picture, uint8 [height, width, channels], to the TensorBoard events only."""
        if self._events is not None:
            self._events.add_image(name, image, step, dataformats="HWC")


def _keep_rows(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _row_step(line) <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(line + "\n" for line in kept))
    os.replace(part, path)


def _row_step(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")  # a line cut short by a kill
