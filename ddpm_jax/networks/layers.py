"""Layers of the networks: timestep embedding, normalization, residual and attention blocks, resampling."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from ddpm_jax.networks.normalization import GroupNorm

TINY = 1e-10
"""The `scale` of layers that Ho et al. 2020 initialize almost to zero, so that each block starts as the identity."""


def initializer(scale: float = 1.0):
    """Initializer: uniform weights of variance scale / mean(fan-in, fan-out) (Glorot & Bengio 2010; Ho et al. 2020)."""
    return nn.initializers.variance_scaling(scale, "fan_avg", "uniform")


def timestep_embedding(
    index: Num[Array, " batch"], width: int, cos_first: bool = False, frequency_shift: int = 1
) -> Float[Array, "batch width"]:
    """``[sin(index f), cos(index f)]`` for `width // 2` frequencies f, falling geometrically from 1 to 1/10000.

        f_k = 10000^(-k / (half - frequency_shift)),    k = 0 .. half - 1,    half = width // 2

    Vaswani et al. 2017; Ho et al. 2020, Section 4 and released code. The index is in [0, T - 1], integer or real, and
    not rescaled. An odd width ends in a zero. Checkpoints of other libraries may have the cosines first (`cos_first`),
    or a `frequency_shift` of 0, with which f stops one factor above 1/10000.
    """
    half = width // 2
    frequencies = jnp.exp(-jnp.log(10000.0) * jnp.arange(half) / max(half - frequency_shift, 1))
    angles = index.astype(jnp.float32)[:, None] * frequencies[None]
    waves = [jnp.cos(angles), jnp.sin(angles)] if cos_first else [jnp.sin(angles), jnp.cos(angles)]
    return jnp.pad(jnp.concatenate(waves, axis=1), ((0, 0), (0, width % 2)))


class TimeEmbedding(nn.Module):
    """`timestep_embedding` followed by two dense layers, plus an embedding of the class label if there are classes.

    The output is [batch, 4 width]. A label of `num_classes`, or None, selects the embedding for "no label", as used in
    classifier-free guidance. Without `null_label` there is none: a label of None then raises ValueError, except in
    `init`, and one of `num_classes` gives NaN.
    """

    width: int
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32
    cos_first: bool = False
    frequency_shift: int = 1
    null_label: bool = True

    @nn.compact
    def __call__(self, index: Array, label: Array | None) -> Array:
        x = timestep_embedding(index, self.width, self.cos_first, self.frequency_shift).astype(self.dtype)
        x = dense(4 * self.width, self.dtype, "dense_in")(x)
        x = dense(4 * self.width, self.dtype, "dense_out")(nn.swish(x))
        if self.num_classes is None:
            return x
        if label is None and not self.null_label and not self.is_initializing():
            raise ValueError('this network has no embedding for "no label" (null_label=False): give a label')
        label = jnp.full(index.shape, self.num_classes) if label is None else label
        rows = self.num_classes + self.null_label
        return x + nn.Embed(rows, 4 * self.width, dtype=self.dtype, name="label")(label)


@jax.custom_jvp
def with_stored_gradient(x: Array) -> Array:
    """Returns x; on a CPU, the gradient of what follows with respect to x is stored before it is used.

    Otherwise XLA for CPUs computes it twice after a convolution or a dense layer, once for the gradient of the kernel
    and once for that of the input: with this, a train step takes 5 to 9 % less time. On an H100 it would move 2 % more
    bytes.
    """
    return x


@with_stored_gradient.defjvp
def _with_stored_gradient_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    return primals[0], jax.lax.platform_dependent(tangents[0], cpu=jax.lax.optimization_barrier, default=lambda t: t)


def stored(layer: nn.Module) -> Callable[[Array], Array]:
    return lambda x: with_stored_gradient(layer(x))


def dense(features: int, dtype: DTypeLike, name: str, scale: float = 1.0) -> Callable[[Array], Array]:
    """A dense layer on the last axis; for images, a 1x1 convolution."""
    return stored(nn.Dense(features, dtype=dtype, kernel_init=initializer(scale), name=name))


def conv3x3(features: int, dtype: DTypeLike, name: str, scale: float = 1.0) -> Callable[[Array], Array]:
    """A 3x3 convolution that preserves height and width."""
    return stored(nn.Conv(features, (3, 3), padding="SAME", dtype=dtype, kernel_init=initializer(scale), name=name))


class Weights(nn.Module):
    """The kernel and the bias of a `dense` layer, or of a convolution with a `window`, by their names.

    Their initial values are those of the layer.
    """

    features: int
    scale: float = 1.0
    window: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        shape = (*self.window, channels, self.features)
        kernel = self.param("kernel", initializer(self.scale), shape, jnp.float32)
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


def convolution(x: Array, kernel: Array, padding: str | Sequence[tuple[int, int]] = "SAME") -> Array:
    """x [batch, height, width, channels] and a kernel [height, width, channels, features], without a bias."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv1x1(x: Array, dtype: DTypeLike, *weights: tuple[Array, Array]) -> tuple[Array, ...]:
    """1x1 convolutions of x with each (kernel [channels, features], bias [features]), computed as one.

    As a convolution, and not as a matrix product, it moves less on a GPU: cuDNN adds the bias.
    """
    kernel, bias = (jnp.concatenate(arrays, axis=-1).astype(dtype) for arrays in zip(*weights, strict=True))
    ends = np.cumsum([len(bias) for _, bias in weights])[:-1]
    y = _pixelwise(x, kernel) + bias[None, None, None]
    return tuple(jnp.split(with_stored_gradient(y), ends.tolist(), axis=-1))


@jax.custom_jvp
def _pixelwise(x: Array, kernel: Array) -> Array:
    """x [batch, height, width, channels] times the kernel [channels, features], as a convolution."""
    return convolution(x, kernel[None, None])


@_pixelwise.defjvp
def _pixelwise_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, kernel), (of_x, of_kernel) = primals, tangents
    # the gradient of the kernel as a matrix product on a CPU, where XLA otherwise transposes both operands first
    of_y = jax.lax.platform_dependent(x, of_kernel, cpu=jnp.matmul, default=_pixelwise)
    return _pixelwise(x, kernel), _pixelwise(of_x, kernel) + of_y


def add_bias_and_time(h: Array, bias: Array, time: Array) -> Array:
    """``h + bias + time``, where the bias is [1, 1, 1, channels] and the time embedding [batch, 1, 1, channels]."""
    return jax.lax.platform_dependent(h, bias, time, cuda=_add_at_once, default=_add_in_turn)


def _add_in_turn(h: Array, bias: Array, time: Array) -> Array:
    return with_stored_gradient(h + bias) + time


def _add_at_once(h: Array, bias: Array, time: Array) -> Array:
    """The barrier keeps the time embedding out of the convolution, which would add it as a whole image.

    The gradients of the bias and of the time embedding then share their sums over pixels.
    """
    h, shift = jax.lax.optimization_barrier((h, bias + time))
    return h + shift


class Dropout(nn.Module):
    """Sets each value to zero with probability `rate` and divides the others by 1 - rate, as `nn.Dropout` does.

    On a GPU, whose steps memory bounds, the gradient keeps one bit for each value in place of XLA's byte.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, x.shape)
        kept = jax.lax.platform_dependent(kept, cuda=_through_bits, default=lambda kept: kept)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def _through_bits(flags: Array) -> Array:
    return jnp.unpackbits(jnp.packbits(flags, axis=-1), axis=-1, count=flags.shape[-1]).astype(bool)


class ResBlock(nn.Module):
    """Residual block: the input plus twice (normalization, swish, convolution), with the time embedding between.

    The embedding is added before the second normalization; with `scale_shift` it scales and shifts what that returns
    (Nichol & Dhariwal 2021, Appendix A). Where the number of channels changes, a 1x1 convolution is applied to the
    input first. `resample`, such as `upsample`, is applied to the input, and before the first convolution (BigGAN:
    Brock et al. 2019, Figure 15; Dhariwal & Nichol 2021, Section 3).
    """

    features: int
    groups: int
    dropout: float
    dtype: DTypeLike
    epsilon: float
    scale_shift: bool = False
    resample: Callable[[Array], Array] | None = None

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool) -> Array:
        h = GroupNorm(self.groups, self.dtype, self.epsilon, swish=True, name="norm_in")(x)
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        kernel, bias = Weights(self.features, window=(3, 3), name="conv_in")(h.shape[-1])
        h, bias = convolution(h, kernel.astype(self.dtype)), bias.astype(self.dtype)[None, None, None]
        norm = GroupNorm(self.groups, self.dtype, self.epsilon, swish=not self.scale_shift, name="norm_out")
        time = dense((1 + self.scale_shift) * self.features, self.dtype, "time")(nn.swish(emb))[:, None, None, :]
        if self.scale_shift:
            scale, shift = jnp.split(time, 2, axis=-1)
            h = nn.swish(norm(with_stored_gradient(h + bias)) * (1 + scale) + shift)
        else:
            h = norm(add_bias_and_time(h, bias, time))
        h = Dropout(self.dropout)(h) if train and self.dropout else h
        h = conv3x3(self.features, self.dtype, "conv_out", scale=TINY)(h)
        if x.shape[-1] != self.features:
            (x,) = conv1x1(x, self.dtype, Weights(self.features, name="shortcut")(x.shape[-1]))
        return x + h


def attend(query: Array, key: Array, value: Array) -> Array:
    """Attention, [batch, pixels, heads, channels], with the softmax in float32 or more precision."""
    return jax.lax.platform_dependent(query, key, value, cuda=_attend_on_gpu, default=jax.nn.dot_product_attention)


def _attend_on_gpu(query: Array, key: Array, value: Array) -> Array:
    """As `jax.nn.dot_product_attention`, with less to store for the gradient, and to move."""
    return jnp.swapaxes(jnp.einsum("bhqk,bkhd->bhqd", _attention_weights(query, key), value), 1, 2)


@jax.custom_jvp
def _attention_weights(query: Array, key: Array) -> Array:
    """``softmax(query key / sqrt(channels))``, [batch, heads, pixels, pixels], rounded to the dtype of the query."""
    precise = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=precise)
    return jax.nn.softmax(scores / np.sqrt(query.shape[-1])).astype(query.dtype)


@_attention_weights.defjvp
def _attention_weights_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    """The gradient is computed from the rounded weights, since the scores, in float32, are three times as large."""
    (query, key), (of_query, of_key) = primals, tangents
    weights = _attention_weights(query, key)
    products = jnp.einsum("bqhd,bkhd->bhqk", of_query, key) + jnp.einsum("bqhd,bkhd->bhqk", query, of_key)
    kept = jax.lax.optimization_barrier(weights).astype(jnp.promote_types(query.dtype, jnp.float32))
    slope = kept * (products / np.sqrt(query.shape[-1]))
    return weights, (slope - kept * slope.sum(axis=-1, keepdims=True)).astype(weights.dtype)


class Attention(nn.Module):
    """Residual self-attention block: the input plus attention over all pixels of the image, with `heads` heads."""

    heads: int
    groups: int
    dtype: DTypeLike
    epsilon: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, self.dtype, self.epsilon, name="norm")(x)
        split = (batch, height * width, self.heads, channels // self.heads)
        weights = [Weights(channels, name=name)(channels) for name in ("query", "key", "value")]
        query, key, value = (part.reshape(split) for part in conv1x1(h, self.dtype, *weights))
        h = attend(query, key, value).reshape(x.shape)
        (h,) = conv1x1(h, self.dtype, Weights(channels, scale=TINY, name="out")(channels))
        return x + h
