"""Pictures of samples and of the rate-distortion curve; PNG and npz files that record how they were made."""

import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.system.files import whole_file

GAP, GAP_LEVEL = 2, 48
"""Width of the gaps of a grid in pixels, and their grey level."""


def grid(images: np.ndarray, columns: int | None = None, min_height: int = 48) -> np.ndarray:
    """Arranges images, uint8 [num, height, width, channels], in one grid, uint8 [height, width, channels], with gaps.

    Without `columns` the grid is nearly square. Images with fewer than `min_height` rows of pixels are enlarged by a
    whole factor: each pixel is repeated.
    """
    count, height, _, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, math.ceil(min_height / height))
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    framed = np.pad(large, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=GAP_LEVEL)
    empty = np.full((rows * columns - count, *framed.shape[1:]), GAP_LEVEL, np.uint8)
    cells = np.concatenate([framed, empty]).reshape(rows, columns, *framed.shape[1:])
    tiled = cells.transpose(0, 2, 1, 3, 4).reshape(rows * framed.shape[1], columns * framed.shape[2], channels)
    return np.pad(tiled, ((0, GAP), (0, GAP), (0, 0)), constant_values=GAP_LEVEL)


def picture(samples: np.ndarray) -> np.ndarray:
    """Decoded samples as one picture, uint8 [height, width, channels].

    Images [num, height, width, channels] become a grid, points [num, 2] a scatter plot, and sequences [num, length] one
    row of pixels each.
    """
    if samples.ndim == 4:
        return grid(samples)
    return scatter(samples) if samples.shape[1] == 2 else grid(samples[None, :, :, None], min_height=8 * len(samples))


def scatter(points: np.ndarray, arrows: np.ndarray | None = None, limit: float = 2.5) -> np.ndarray:
    """Points [num, 2], or arrows [num, 2] that start at them, as a picture, uint8 [480, 480, 3].

    The picture shows the square from -limit to limit. matplotlib chooses the scale of the arrows, so their lengths
    compare within one picture only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), dpi=100)
    axis = figure.add_axes((0, 0, 1, 1), xlim=(-limit, limit), ylim=(-limit, limit))
    axis.set_axis_off()
    if arrows is None:
        axis.scatter(*points.T, s=3)
    else:
        axis.quiver(*points.T, *arrows.T, angles="xy", width=0.002)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(path: Path, picture: np.ndarray, provenance: dict[str, Any] | None = None) -> None:
    """Writes a picture, uint8 [height, width, channels] with 1, 3 or 4 channels, as a PNG, completely or not at all.

    The provenance is stored in the file as text; `provenance_of` reads it.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if provenance is not None:
        info.add_text("ddpm_jax", json.dumps(provenance, sort_keys=True))
    with whole_file(path) as part:
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(part, "PNG", pnginfo=info)


def save_npz(
    path: Path, batches: Iterable[np.ndarray], num: int, labels: np.ndarray | None, provenance: dict[str, Any]
) -> None:
    """Writes an npz of ``arr_0`` (images), ``arr_1`` (labels, if any) and ``provenance``, completely or not at all.

    The batches have `num` images in total, and are written one by one, so memory does not grow with `num`. Images are
    uint8 [num, height, width, channels], points float32 [num, 2], sequences of bits uint8 [num, length] with values 0
    and 255.
    """
    with whole_file(path) as part, zipfile.ZipFile(part, "w") as archive:
        _add_array(archive, "arr_0", batches, num)
        if labels is not None:
            _add_array(archive, "arr_1", [labels], num)
        with archive.open(zipfile.ZipInfo("provenance.npy"), "w") as file:
            np.lib.format.write_array(file, np.array(json.dumps(provenance, sort_keys=True)), allow_pickle=False)


def _add_array(archive: zipfile.ZipFile, name: str, batches: Iterable[np.ndarray], num: int) -> None:
    """Adds the concatenated batches to an npz as one array."""
    # ZipInfo has a fixed date, so that the same images make the same file
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        for number, batch in enumerate(batches):
            if number == 0:
                shape = {"descr": batch.dtype.str, "fortran_order": False, "shape": (num, *batch.shape[1:])}
                np.lib.format.write_array_header_1_0(file, shape)
            file.write(np.ascontiguousarray(batch).tobytes())


def provenance_of(path: Path) -> dict[str, Any] | None:
    """The provenance recorded in a PNG, an npz file or a folder of PNGs (that of its first); None if there is none."""
    if path.is_dir():
        first = min(path.glob("*.png"), default=None)
        return first and provenance_of(first)
    try:
        text = str(np.load(path)["provenance"]) if path.suffix == ".npz" else _png_text(path)
        return json.loads(text)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
        return None


def _png_text(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        return image.info["ddpm_jax"]


def rate_distortion(rate: np.ndarray, distortion: np.ndarray, path: Path) -> None:
    """Writes the curves of progressive coding as a PNG (Ho et al. 2020, Figure 5).

    `rate` [T]: bits/dim received in total when t has fallen to T, .., 1. `distortion` [T]: root mean squared error of
    the estimate of x_0 at that t, on the scale 0..255.
    """
    from matplotlib.figure import Figure

    steps = np.arange(1, len(rate) + 1)
    in_steps, in_rate, in_distortion = "reverse steps T - t + 1", "rate (bits/dim)", "distortion (RMSE, 0-255)"
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axis, x, y, xlabel, ylabel in zip(
        figure.subplots(1, 3),
        (rate, steps, steps),
        (distortion, distortion, rate),
        (in_rate, in_steps, in_steps),
        (in_distortion, in_distortion, in_rate),
        strict=True,
    ):
        axis.plot(x, y)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)


def by_step(lines: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Writes a chart of values by the training step for each title as one PNG; a ring marks the least value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(lines), 3.8), layout="constrained")
    for axis, (title, points) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
        step, least = min(points, key=lambda point: point[1])
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4)
        ring = {"marker": "o", "markersize": 10, "fillstyle": "none", "color": "gray", "linestyle": "none"}
        axis.plot(step, least, label=f"least: {least:.4g} at step {step:,}", **ring)
        axis.set(xlabel="training step")
        axis.set_title(title, fontsize="medium")
        axis.grid(alpha=0.3)
        axis.legend()
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)


def curves(
    lines: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str, level: float, level_name: str
) -> np.ndarray:
    """A chart of curves over logarithmic axes, with a horizontal line at `level`: uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained", dpi=120)
    axis = figure.subplots()
    for name, points in lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axis.axhline(level, color="gray", linestyle="--", label=level_name)
    axis.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
