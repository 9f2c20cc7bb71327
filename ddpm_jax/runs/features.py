"""Features of samples and of data sets, as work for all devices of all processes."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array

from ddpm_jax.data import Data, load
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.interop import torch_files
from ddpm_jax.metrics import extract, inception, pixels
from ddpm_jax.metrics.resize import Resizing
from ddpm_jax.runs import classifiers, experiment_files
from ddpm_jax.runs.chunks import Result, Work, on_devices
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.training import sharding

RESIZINGS: Mapping[str, Resizing] = {
    "inception": "tensorflow",
    "inception-pytorch-fid": "pytorch",
    "inception-clean": "clean",
}
"""How the features of the Inception network bring images to its size, by their name."""


class Features(NamedTuple):
    """A feature function, and what identifies it."""

    extractor: Partial
    """``uint8 images [batch, height, width, channels] -> float32 [batch, dims]``, or ``inception.Activations``, or
    ``classifiers.Activations``. A tree: its weights are arguments of compiled programs."""
    protocol: Mapping[str, Any]
    """The name of the features, and for those of a network what identifies it: for the Inception network its resizing
    and the SHA-256 of its weights."""
    spatial: bool = False
    """Whether the features for sFID are computed too."""


PIXELS = Features(Partial(pixels), {"features": "pixels"})
"""The pixels themselves."""


def weights_of(request: EvaluateRequest, image_shape: Sequence[int]) -> Path | None:
    """The file of weights that the features of the request need, after a check of its digest; None if they need none.

    Raises ValueError, with the ways out, if there is no such file, or if the network cannot have such images.
    """
    if isinstance(request.features, Path):
        of_path(request.features, image_shape)
        return None
    if request.features == "pixels":
        return None
    if image_shape[-1] not in (1, 3):
        raise ValueError(f"--features {request.features} need 1 or 3 channels, not {image_shape[-1]}: choose pixels")
    try:
        return inception.weights_file(request.inception_weights)
    except ValueError as error:
        raise ValueError(f"{error}; give it as --inception-weights FILE, or choose --features pixels") from None


def features_of(request: EvaluateRequest, image_shape: Sequence[int]) -> Features:
    """The features that the request names. Raises ValueError as `weights_of` does."""
    if isinstance(request.features, Path):
        return of_path(request.features, image_shape)
    file = weights_of(request, image_shape)
    if file is None:
        return PIXELS
    resizing = RESIZINGS[request.features]
    protocol = {"features": request.features, "resizing": resizing, "weights_sha256": inception.SHA_256}
    return Features(_extractor(file, resizing), protocol, spatial="sfid" in (request.metrics or ()))


def of_path(path: Path, image_shape: Sequence[int]) -> Features:
    """The features of the classifier in a workdir, or those of the function `features` of a Python file.

    Raises ValueError if they cannot be computed of images of this shape, FileNotFoundError if there is neither.
    """
    if path.suffix != ".py":
        return Features(*classifiers.features(path, image_shape))
    if not path.is_file():
        raise FileNotFoundError(f"--features {path}: there is no such file")
    return _of_file(path.resolve(), experiment_files.digest(path), tuple(image_shape))


@lru_cache(maxsize=1)  # several metrics of a command need it
def _of_file(path: Path, digest: str, image_shape: tuple[int, ...]) -> Features:
    extractor = experiment_files.read(path, "features")
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.uint8)
    try:
        found = jax.eval_shape(extractor, images)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--features {path}: features(images) fails for images of {image_shape}: {error}") from None
    if getattr(found, "ndim", 0) != 2 or len(found) != 2 or found.dtype != jnp.float32:
        raise ValueError(f"--features {path}: features(images) returns {found}, not float32 [num, dims]")
    return Features(Partial(extractor), {"features": path.name, "features_sha256": digest})


@lru_cache(maxsize=1)  # several metrics of a command need it
def _extractor(file: Path, resizing: Resizing) -> Partial:
    return inception.extractor(inception.params_from_torch(torch_files.read(file)), resizing)


def protocol_of(request: EvaluateRequest, image_shape: Sequence[int]) -> dict[str, Any]:
    """The protocol of the request, with what identifies its features where a path alone does not."""
    protocol = request.protocol()
    if not isinstance(request.features, Path) or "features" not in protocol:
        return protocol
    return {**protocol, **of_path(request.features, image_shape).protocol}


def of_data(features: Features, data: Data, split: str, num: int, size: int) -> Work:
    """The features of the first `num` images of the split, as chunks {"vectors": [size, dims], "logits": ...}."""
    source = data.open(split)

    def chunk(first: int) -> np.ndarray:
        rows = np.arange(first, first + size) % num
        return pictures(source, rows.tolist(), data.levels)

    return on_devices(num, size, _function(features), features.extractor, chunk, dict, "image")


def of_samples(features: Features, draws: Work) -> Work:
    """The features of samples, chunk by chunk as these are drawn: the samples themselves are not kept."""
    computed = sharding.on_each_device(_function(features), features.extractor, draws.together)

    def compute(firsts: Sequence[int]) -> list[Result]:
        drawn = [result["images"] for result in draws.compute(firsts)]
        found = computed([np.resize(images, (draws.size, *images.shape[1:])) for images in drawn])
        return [_first(len(images), arrays) for images, arrays in zip(drawn, found, strict=True)]

    return draws._replace(compute=compute)


def vectors(features: Features, images: np.ndarray) -> np.ndarray:
    """The feature vectors of images, uint8 [num, height, width, channels], computed by one device of this process."""
    return extract(partial(_compiled, features.extractor), [images])["vectors"]


def _first(count: int, arrays: Mapping[str, np.ndarray]) -> Result:
    return {name: array[:count] for name, array in arrays.items()}


def _function(features: Features) -> Callable[[Partial, Array], dict[str, Array]]:
    return _with_spatial if features.spatial else _named


def _with_spatial(extractor: Partial, images: Array) -> dict[str, Array]:
    """The result of `_named` with the features for sFID."""
    found: inception.Activations = extractor(images)
    return {"vectors": found.pool, "logits": found.logits, "spatial": found.spatial}


def _named(extractor: Partial, images: Array) -> dict[str, Array]:
    """The feature vectors, and the logits if there are any."""
    found = extractor(images)
    if isinstance(found, inception.Activations | classifiers.Activations):
        return {"vectors": found.pool, "logits": found.logits}
    return {"vectors": found}


_compiled = jax.jit(_named)


def check_images(metric: str, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError for data that are not images."""
    if len(image_shape) != 3:
        raise ValueError(f"--metrics {metric} is for images, not data of shape {image_shape}: choose another metric")


def pictures(source: Sequence, rows: Sequence[int], levels: int | None) -> np.ndarray:
    """Images of a source with all levels of a byte, uint8 [rows, height, width, channels]; floats as they are."""
    return np.asarray(as_picture(jnp.asarray(load(source, rows)["image"]), levels))
