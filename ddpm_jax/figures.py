"""Pictures: grids of samples, and the progressive-coding curve."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.files import whole_file

GAP, GAP_LEVEL = 2, 48


def grid(images: np.ndarray, columns: int | None = None, smallest: int = 48) -> np.ndarray:
    """uint8 [N, H, W, C] as one picture, in rows, near-square unless `columns` says otherwise, with gaps between.

    Images under `smallest` pixels in height are enlarged by a whole factor, each pixel repeated.
    """
    count, height, _, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    factor = max(1, -(-smallest // height))
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    framed = np.pad(large, ((0, 0), (GAP, 0), (GAP, 0), (0, 0)), constant_values=GAP_LEVEL)
    empty = np.full((rows * columns - count, *framed.shape[1:]), GAP_LEVEL, np.uint8)
    tiled = np.concatenate([framed, empty]).reshape(rows, columns, *framed.shape[1:])
    picture = tiled.transpose(0, 2, 1, 3, 4).reshape(rows * framed.shape[1], columns * framed.shape[2], channels)
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=GAP_LEVEL)


def picture(samples: np.ndarray) -> np.ndarray:
    """What samples look like, uint8 [height, width, channels]: a grid of images, a row for each sequence, or points."""
    if samples.ndim == 4:
        return grid(samples)
    return scatter(samples) if samples.shape[1] == 2 else grid(samples[None, :, :, None], smallest=8 * len(samples))


def scatter(points: np.ndarray, arrows: np.ndarray | None = None, limit: float = 2.5) -> np.ndarray:
    """Points [N, 2] in the square from -limit to limit, or arrows from them, as a uint8 [480, 480, 3] picture.

    Arrows are scaled so as to be seen: their lengths compare within a picture only.
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
    """A uint8 [height, width, channels] picture with 1, 3 or 4 channels, written whole or not at all.

    `provenance` goes into the file as text, for `provenance_of`.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if provenance is not None:
        info.add_text("ddpm_jax", json.dumps(provenance, sort_keys=True))
    with whole_file(path) as part:
        Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(part, "PNG", pnginfo=info)


def save_npz(path: Path, images: np.ndarray, labels: np.ndarray | None, provenance: dict[str, Any]) -> None:
    """``arr_0``, ``arr_1`` (labels, if any) and ``provenance``; written whole or not at all.

    Images are uint8 [N, H, W, C], points float32 [N, 2], sequences of bits 0 or 255, uint8 [N, D].
    """
    arrays = {"arr_0": images} | ({} if labels is None else {"arr_1": labels})
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, provenance=np.array(json.dumps(provenance, sort_keys=True)), **arrays)  # type: ignore[arg-type]


def provenance_of(path: Path) -> dict[str, Any] | None:
    """What made this picture, npz file or folder of pictures, if it was made here."""
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
    """The progressive-coding curve (Ho et al. 2020, Figure 5), as a PNG.

    `rate`: bits/dim received by the time t falls to T, .., 1; `distortion`: RMSE on the 0-255 scale. Both [T].
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    over_rate, over_steps, rate_axis = figure.subplots(1, 3)
    steps = np.arange(1, len(rate) + 1)
    for axis, x, y, labels in (
        (over_steps, steps, distortion, ("reverse steps T - t + 1", "distortion (RMSE, 0-255)")),
        (rate_axis, steps, rate, ("reverse steps T - t + 1", "rate (bits/dim)")),
        (over_rate, rate, distortion, ("rate (bits/dim)", "distortion (RMSE, 0-255)")),
    ):
        axis.plot(x, y)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    with whole_file(path) as part:
        figure.savefig(part, format="png", dpi=120)
