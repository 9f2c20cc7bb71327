"""The Inception network of published FIDs (Szegedy et al. 2016; the TensorFlow graph of 2015-12-05)."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Num

from ddpm_jax.metrics.resize import Resizing, resize

SIZE = 299
"""The height and width of the network's input."""
SHA_256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The digest of the published weights."""
FILES = ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth")
"""The names of the weights: the same bytes are published with pytorch-fid and with torch-fidelity."""
EPSILON = 0.001
"""What batch normalization adds to the variance."""


class Activations(NamedTuple):
    """What the metrics use of the network."""

    pool: Float[Array, "batch 2048"]
    """The last average pool: for FID, KID, precision and recall."""
    spatial: Float[Array, "batch 2023"]
    """The first 7 channels of Mixed_6d, 17 x 17 pixels: for sFID as Dhariwal & Nichol 2021 compute it (TensorFlow's
    `mixed_6/conv`)."""
    logits: Float[Array, "batch 1008"]
    """The class scores without the bias: for the Inception Score."""


def extractor(params: Mapping[str, Any], resizing: Resizing = "tensorflow") -> jax.tree_util.Partial:
    """The function ``uint8 images [batch, height, width, 1 or 3] -> Activations``, jitted; the weights are arguments.

    Gray images get three equal channels. The images are resized to 299 x 299 as `resize` describes, and scaled to
    (x - 128) / 128, or to 2 x / 255 - 1 for the resizing ``pytorch``, as the published protocols do. It computes in
    float32. Raises ValueError for images of other shapes.
    """
    return jax.tree_util.Partial(partial(_activations, resizing), params)


@partial(jax.jit, static_argnums=0)
def _activations(
    resizing: Resizing, params: Mapping[str, Any], images: Num[Array, "batch height width channels"]
) -> Activations:
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"the Inception network needs images with 1 or 3 channels, got shape {images.shape}")
    x = resize(images, SIZE, resizing)
    x = 2 * (x / 255) - 1 if resizing == "pytorch" else (x - 128) / 128
    found: Any = InceptionV3().apply({"params": params}, jnp.broadcast_to(x, (*x.shape[:-1], 3)))
    return found


def params_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The parameters from the published weights, given as a PyTorch state dict of arrays.

    Batch normalization is folded into the convolution before it, in float64:

        kernel = weight gamma / sqrt(variance + 0.001),    bias = beta - mean gamma / sqrt(variance + 0.001)

    Raises ValueError naming a weight that is missing or of another shape.
    """
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    return _filled(shapes, state, ())


def _filled(shapes: Mapping[str, Any], state: Mapping[str, np.ndarray], path: tuple[str, ...]) -> dict[str, Any]:
    if "kernel" not in shapes:
        return {name: _filled(below, state, (*path, name)) for name, below in shapes.items()}
    found = _dense(state) if path == ("fc",) else _convolution(state, ".".join(path))
    for name, value in found.items():
        if value.shape != shapes[name].shape:
            raise ValueError(f"{name} of {'.'.join(path)} has shape {value.shape}, not {shapes[name].shape}")
    return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}


def _convolution(state: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    weight, gamma, beta, mean, variance = (
        _weight(state, f"{name}.{part}")
        for part in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
    factor = gamma / np.sqrt(variance + EPSILON)
    return {"kernel": weight.transpose(2, 3, 1, 0) * factor, "bias": beta - mean * factor}


def _dense(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"kernel": _weight(state, "fc.weight").T}


def _weight(state: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in state:
        raise ValueError(f"these are not the weights of the Inception network: {name} is missing")
    return np.asarray(state[name], np.float64)


def weights_file(path: Path | None = None) -> Path:
    """The file of the published weights, after a check of its digest: `path`, or one in PyTorch's cache of downloads.

    The cache is ``$TORCH_HOME/hub/checkpoints``, by default in ``~/.cache/torch``. Raises ValueError if there is no
    such file, or if its SHA-256 is not that of the published one.
    """
    cache = Path(os.environ.get("TORCH_HOME", "~/.cache/torch")).expanduser() / "hub" / "checkpoints"
    candidates = [cache / name for name in FILES] if path is None else [path]
    found = next((file for file in candidates if file.is_file()), None)
    if found is None:
        raise ValueError(f"there is no file {candidates[0]}: download it from the releases of mseitzer/pytorch-fid")
    with found.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA_256:
        raise ValueError(f"{found} has SHA-256 {digest[:8]}..., not {SHA_256[:8]}...: download it again")
    return found


class InceptionV3(nn.Module):
    """The network, with batch normalization folded into its convolutions. Input [batch, 299, 299, 3], about -1..1.

    It differs from the Inception-v3 of model collections: 1008 classes; average pools divide by the pixels inside the
    image; the last block pools by maximum.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"]) -> Activations:
        x = _conv(x, 32, "Conv2d_1a_3x3", (3, 3), 2, "VALID")
        x = _conv(x, 32, "Conv2d_2a_3x3", (3, 3), padding="VALID")
        x = nn.max_pool(_conv(x, 64, "Conv2d_2b_3x3", (3, 3)), (3, 3), (2, 2))
        x = _conv(x, 80, "Conv2d_3b_1x1")
        x = nn.max_pool(_conv(x, 192, "Conv2d_4a_3x3", (3, 3), padding="VALID"), (3, 3), (2, 2))
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = BlockA(pooled, name=f"Mixed_5{letter}")(x)
        x = BlockB(name="Mixed_6a")(x)
        for letter, width in zip("bcd", (128, 160, 160), strict=True):
            x = BlockC(width, name=f"Mixed_6{letter}")(x)
        spatial = x[..., :7].reshape(len(x), -1)
        x = BlockD(name="Mixed_7a")(BlockC(192, name="Mixed_6e")(x))
        x = BlockE(_average_pool, name="Mixed_7b")(x)
        pool = BlockE(_max_pool, name="Mixed_7c")(x).mean(axis=(1, 2))
        logits = nn.Dense(1008, use_bias=False, precision="highest", name="fc")(pool)
        return Activations(pool, spatial, logits)


class BlockA(nn.Module):
    """Branches of 1x1, 5x5 and two 3x3 convolutions, and an average pool of `pooled` channels."""

    pooled: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _conv(x, 64, "branch1x1")
        five = _chain(x, "branch5x5_", [(48, (1, 1)), (64, (5, 5))])
        double = _chain(x, "branch3x3dbl_", [(64, (1, 1)), (96, (3, 3)), (96, (3, 3))])
        return jnp.concatenate([single, five, double, _conv(_average_pool(x), self.pooled, "branch_pool")], axis=-1)


class BlockB(nn.Module):
    """Halves height and width by a 3x3 convolution, two of them, and a maximum pool."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _conv(x, 384, "branch3x3", (3, 3), 2, "VALID")
        double = _chain(x, "branch3x3dbl_", [(64, (1, 1)), (96, (3, 3))])
        double = _conv(double, 96, "branch3x3dbl_3", (3, 3), 2, "VALID")
        return jnp.concatenate([single, double, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class BlockC(nn.Module):
    """Branches of 1x1, of one and of two factorized 7x7 convolutions of `width` channels, and an average pool."""

    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        width, row, column = self.width, (1, 7), (7, 1)
        single = _conv(x, 192, "branch1x1")
        seven = _chain(x, "branch7x7_", [(width, (1, 1)), (width, row), (192, column)])
        steps = [(width, (1, 1)), (width, column), (width, row), (width, column), (192, row)]
        double = _chain(x, "branch7x7dbl_", steps)
        return jnp.concatenate([single, seven, double, _conv(_average_pool(x), 192, "branch_pool")], axis=-1)


class BlockD(nn.Module):
    """Halves height and width by a 3x3 convolution, by one after a factorized 7x7, and a maximum pool."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _conv(_conv(x, 192, "branch3x3_1"), 320, "branch3x3_2", (3, 3), 2, "VALID")
        seven = _chain(x, "branch7x7x3_", [(192, (1, 1)), (192, (1, 7)), (192, (7, 1))])
        seven = _conv(seven, 192, "branch7x7x3_4", (3, 3), 2, "VALID")
        return jnp.concatenate([single, seven, nn.max_pool(x, (3, 3), (2, 2))], axis=-1)


class BlockE(nn.Module):
    """Branches of 1x1, of a 3x3 and of two that end in a 1x3 beside a 3x1 convolution, and a pool."""

    pool: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _conv(x, 320, "branch1x1")
        split = _conv(x, 384, "branch3x3_1")
        double = _chain(x, "branch3x3dbl_", [(448, (1, 1)), (384, (3, 3))])
        pairs = [(split, "branch3x3_2a", (1, 3)), (split, "branch3x3_2b", (3, 1))]
        pairs += [(double, "branch3x3dbl_3a", (1, 3)), (double, "branch3x3dbl_3b", (3, 1))]
        ends = [_conv(h, 384, name, kernel) for h, name, kernel in pairs]
        return jnp.concatenate([single, *ends, _conv(self.pool(x), 192, "branch_pool")], axis=-1)


def _chain(x: Array, prefix: str, steps: Sequence[tuple[int, tuple[int, int]]]) -> Array:
    """Convolutions one after the other, numbered from 1."""
    for number, (features, kernel) in enumerate(steps, 1):
        x = _conv(x, features, f"{prefix}{number}", kernel)
    return x


def _conv(
    x: Array,
    features: int,
    name: str,
    kernel: tuple[int, int] = (1, 1),
    stride: int = 1,
    padding: str = "SAME",
) -> Array:
    # by default accelerators round the factors of a product, which shifts the published numbers
    strides = (stride, stride)
    return nn.relu(nn.Conv(features, kernel, strides, padding, precision="highest", name=name)(x))


def _average_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _max_pool(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), padding="SAME")
