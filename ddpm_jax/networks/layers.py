"""The pieces of the networks: timestep embedding, normalisation, residual and attention blocks, resampling."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

TINY = 1e-10
"""The scale of the layers that Ho et al. 2020 initialise "to zero", so that each block starts as the identity."""


def initializer(scale: float = 1.0):
    """Uniform with variance `scale` over the mean of fan-in and fan-out (Glorot), as in the code of Ho et al. 2020."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def timestep_embedding(
    index: Num[Array, " batch"], width: int, cos_first: bool = False, frequency_shift: int = 1
) -> Float[Array, "batch width"]:
    """``[sin(index f), cos(index f)]``, f falling geometrically from 1 to 1/10000; odd widths end in a zero.

    Ho et al. 2020, Section 4 and released code; Vaswani et al. 2017. The index is 0..T-1 and not rescaled. Other
    libraries have the cosines first, or a `frequency_shift` of 0, where the last f is one ratio above 1/10000.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / max(half - frequency_shift, 1))
    angles = index.astype(jnp.float32)[:, None] * frequencies[None]
    waves = [jnp.cos(angles), jnp.sin(angles)] if cos_first else [jnp.sin(angles), jnp.cos(angles)]
    return jnp.pad(jnp.concatenate(waves, axis=1), ((0, 0), (0, width % 2)))


class TimeEmbedding(nn.Module):
    """The sinusoids through two dense layers; a class label, if there is one, adds an embedding of its own.

    Label `num_classes` means "no label": the row that classifier-free guidance learns and asks for.
    """

    width: int
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32
    cos_first: bool = False
    frequency_shift: int = 1

    @nn.compact
    def __call__(self, index: Array, label: Array | None) -> Array:
        x = timestep_embedding(index, self.width, self.cos_first, self.frequency_shift).astype(self.dtype)
        x = dense(4 * self.width, self.dtype, "dense_in")(x)
        x = dense(4 * self.width, self.dtype, "dense_out")(nn.swish(x))
        if self.num_classes is None:
            return x
        label = jnp.full(index.shape, self.num_classes) if label is None else label
        return x + nn.Embed(self.num_classes + 1, 4 * self.width, dtype=self.dtype, name="label")(label)


def dense(features: int, dtype: DTypeLike, name: str, scale: float = 1.0) -> nn.Dense:
    """A dense layer, or a 1x1 convolution: it acts on the last axis."""
    return nn.Dense(features, dtype=dtype, kernel_init=initializer(scale), name=name)


def conv3x3(features: int, dtype: DTypeLike, name: str, scale: float = 1.0) -> nn.Conv:
    """A 3x3 convolution that keeps height and width."""
    return nn.Conv(features, (3, 3), padding="SAME", dtype=dtype, kernel_init=initializer(scale), name=name)


def downsample(features: int, dtype: DTypeLike, name: str, padding: int = 0) -> nn.Conv:
    """A 3x3 convolution at every other pixel, zeros added to the right and below, and `padding` of them before."""
    sides = (padding, 1)
    return nn.Conv(features, (3, 3), (2, 2), (sides, sides), dtype=dtype, kernel_init=initializer(), name=name)


class GroupNorm(nn.Module):
    """`group_norm` with a learned scale and bias for each channel; float32 inside, whatever the dtype of the result."""

    groups: int
    dtype: DTypeLike
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        return group_norm(x.astype(jnp.float32), scale, bias, self.groups, self.epsilon).astype(self.dtype)


def group_norm(
    x: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    groups: int,
    epsilon: float,
) -> Float[Array, "batch height width channels"]:
    """Each group of neighbouring channels shifted and scaled to mean 0 and variance 1 over the image, then `bias` and
    `scale` (Wu and He 2018).

    All of it is one multiplication and one addition for each channel of an image, whose numbers come from sums over its
    pixels: two passes over x here and two in the gradient, where means over groups of channels take several.
    """
    area = x.shape[1] * x.shape[2]
    sums = jnp.stack([x.sum(axis=(1, 2)), jnp.square(x).sum(axis=(1, 2))])
    mean, square = sums.reshape(2, len(x), groups, -1).mean(axis=3, keepdims=True) / area
    deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    factor = scale.reshape(1, groups, -1) / deviation
    offset = bias.reshape(1, groups, -1) - mean * factor
    each = (len(x), 1, 1, x.shape[-1])
    return x * factor.reshape(each) + offset.reshape(each)


class ResBlock(nn.Module):
    """Norm, swish, convolution, twice, with the time embedding added between; the input is added at the end."""

    features: int
    groups: int
    dropout: float
    dtype: DTypeLike
    epsilon: float

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool) -> Array:
        h = nn.swish(GroupNorm(self.groups, self.dtype, self.epsilon, name="norm_in")(x))
        h = conv3x3(self.features, self.dtype, "conv_in")(h)
        h = h + dense(self.features, self.dtype, "time")(nn.swish(emb))[:, None, None, :]
        h = nn.swish(GroupNorm(self.groups, self.dtype, self.epsilon, name="norm_out")(h))
        h = nn.Dropout(self.dropout, deterministic=not train)(h)
        h = conv3x3(self.features, self.dtype, "conv_out", scale=TINY)(h)
        if x.shape[-1] != self.features:
            x = dense(self.features, self.dtype, "shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all positions of the image, `heads` heads; the input is added at the end."""

    heads: int
    groups: int
    dtype: DTypeLike
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, self.dtype, self.epsilon, name="norm")(x)
        split = (batch, height * width, self.heads, channels // self.heads)
        query, key, value = (dense(channels, self.dtype, name)(h).reshape(split) for name in ("query", "key", "value"))
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return x + dense(channels, self.dtype, "out", scale=TINY)(h)


def upsample(x: Float[Array, "batch height width channels"]) -> Array:
    """Twice the height and width, each pixel repeated."""
    batch, height, width, channels = x.shape
    repeated = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return repeated.reshape(batch, 2 * height, 2 * width, channels)
