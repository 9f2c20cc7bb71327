"""A lesson: one picture of the tour, with the numbers of its caption."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Lesson(NamedTuple):
    """One picture of the tour, and the numbers in its caption."""

    name: str
    """Part of the picture's file name, and the ``$name`` of the picture in tour.html."""
    figure: Figure
    facts: Mapping[str, str]
    """The text of each ``$name`` in the caption in tour.html."""


def strips(rows: Sequence[tuple[str, Sequence[np.ndarray]]], titles: Sequence[str]) -> Figure:
    """Rows of images, uint8 [height, width, channels], with a label for each row and a title for each column."""
    figure = Figure(figsize=(1.15 * len(titles) + 1.6, 1.15 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (label, images) in zip(axes, rows, strict=True):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center")
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=(), yticks=())
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    return figure
