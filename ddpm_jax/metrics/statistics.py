"""Files of reference statistics: ours, pytorch-fid's and those of Dhariwal & Nichol's evaluator."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from ddpm_jax.metrics.moments import Moments


class Statistics(NamedTuple):
    """What is kept of a set of images, so that others are compared with it."""

    pool: Moments
    """The moments of the features for FID."""
    spatial: Moments | None = None
    """The moments of the features for sFID."""
    made: Mapping[str, Any] | None = None
    """What made them: data set, split, number of images, network, resizing, as JSON values; None if not stated."""


def write_statistics(path: Path, statistics: Statistics, images: UInt8[np.ndarray, "count ..."] | None = None) -> None:
    """Writes an npz file with `mu`, `sigma`, `mu_s`, `sigma_s`, `arr_0` (the images, for precision and recall).

    These are the names that pytorch-fid and the evaluator of Dhariwal & Nichol 2021 read. Beside them are `count`,
    `count_s` and `made`, a JSON text.
    """
    arrays = _arrays(statistics.pool, "") | (_arrays(statistics.spatial, "_s") if statistics.spatial else {})
    arrays |= {"made": np.array(json.dumps(dict(statistics.made)))} if statistics.made is not None else {}
    arrays |= {"arr_0": images} if images is not None else {}
    with Path(path).open("wb") as file:  # np.savez would add a suffix to a path
        np.savez(file, **arrays)


def _arrays(moments: Moments, suffix: str) -> dict[str, Any]:
    arrays = {f"mu{suffix}": moments.mean, f"sigma{suffix}": moments.covariance}
    return arrays | ({f"count{suffix}": np.array(moments.count)} if moments.count is not None else {})


def read_statistics(path: Path) -> Statistics:
    """Reads an npz file with `mu` and `sigma`, and the other arrays of `write_statistics` where it has them.

    No pickle is executed. Raises ValueError naming the file if it is no npz file or has no statistics, or if a mean and
    a covariance do not belong together; OSError if it cannot be read.
    """
    with _opened(path) as arrays:
        if not {"mu", "sigma"} <= set(arrays.files):
            raise ValueError(f"{path} has no statistics: expected arrays mu and sigma, found {', '.join(arrays.files)}")
        spatial = _moments(arrays, "_s", path) if {"mu_s", "sigma_s"} <= set(arrays.files) else None
        made = json.loads(str(arrays["made"])) if "made" in arrays.files else None
        return Statistics(_moments(arrays, "", path), spatial, made)


def read_images(path: Path) -> UInt8[np.ndarray, "count height width channels"]:
    """The array `arr_0` of an npz file: uint8 images, as samples are exchanged. Raises ValueError if it has none."""
    with _opened(path) as arrays:
        images = arrays["arr_0"] if "arr_0" in arrays.files else np.zeros(0)
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"{path} has no images: expected arr_0, uint8 [count, height, width, channels]")
    return images


def _opened(path: Path) -> Any:
    try:
        arrays = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no npz file: {error}") from None
    if not hasattr(arrays, "files"):
        raise ValueError(f"{path} is a single array, not an npz file")
    return arrays


def _moments(arrays: Any, suffix: str, path: Path) -> Moments:
    mean, covariance = (np.asarray(arrays[f"{name}{suffix}"], np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise ValueError(f"{path}: a mean of shape {mean.shape} has no covariance of shape {covariance.shape}")
    count = f"count{suffix}"
    return Moments(mean, covariance, int(arrays[count]) if count in arrays.files else None)
