"""Group normalization, alone and followed by swish."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class GroupNorm(nn.Module):
    """`group_norm` with a learned scale and bias per channel, computed in float32 and cast to `dtype`.

    With `swish` that activation follows, in `dtype`.
    """

    groups: int
    dtype: DTypeLike
    epsilon: float = 1e-6
    swish: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
        x = x.astype(jnp.float32)
        terms = _terms(x, scale, bias, self.groups, self.epsilon)
        return (_swish if self.swish else _rounded)(self.dtype, x, *terms)


def group_norm(
    x: Float[Array, "batch height width channels"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    groups: int,
    epsilon: float,
) -> Float[Array, "batch height width channels"]:
    """Group normalization (Wu & He 2018): normalizes each group of channels to mean 0 and variance 1 over the image.

        y = (x - mean) / sqrt(variance + epsilon) * scale + bias

    The groups are consecutive channels; `groups` must divide their number. The variance is E[d^2] - E[d]^2, where
    d = x - pivot and the pivot is the mean of the middle row of the group. The square of E[d] is at most `height`
    variances, so the difference loses few digits, however large the mean of x is. Computed in the precision of x, which
    should be float32.
    """
    return _scale_and_shift(x, *_terms(x, scale, bias, groups, epsilon))


def _terms(x: Array, scale: Array, bias: Array, groups: int, epsilon: float) -> tuple[Array, Array, Array]:
    """Pivot, factor and offset with which ``(x - pivot) factor + offset`` is `group_norm`, [batch, 1, 1, channels]."""
    per_channel = (len(x), 1, 1, x.shape[-1])
    middle = jax.lax.stop_gradient(x[:, x.shape[1] // 2]).mean(axis=1).reshape(len(x), groups, -1)
    pivot = jnp.broadcast_to(middle.mean(axis=2, keepdims=True), middle.shape).reshape(per_channel)
    sums = _sums(x, pivot).reshape(2, len(x), groups, -1)
    mean, square = sums.mean(axis=3, keepdims=True) / (x.shape[1] * x.shape[2])
    deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0) + epsilon)
    factor = scale.reshape(1, groups, -1) / deviation
    offset = bias.reshape(1, groups, -1) - mean * factor
    return pivot, factor.reshape(per_channel), offset.reshape(per_channel)


@jax.custom_jvp
def _sums(x: Array, pivot: Array) -> Array:
    """The sums over the pixels of d = x - pivot and of d^2, [2, batch, channels].

    One reduction computes both sums: it reads x once, and keeps no d. On a GPU it takes all pixels at once; elsewhere
    first the rows and then the columns, which is faster on a CPU. Its derivative is given as plain sums, since JAX's
    own for a reduction of two arrays is slow. The result is one array: of two, XLA for CPUs makes programs that take a
    fifth more memory in training.
    """
    at_once, rows_first = partial(_reduced, passes=[(1, 2)]), partial(_reduced, passes=[(1,), (1,)])
    return jax.lax.platform_dependent(x, pivot, cuda=at_once, default=rows_first)


def _reduced(x: Array, pivot: Array, passes: Sequence[tuple[int, ...]]) -> Array:
    sums = (x - pivot, jnp.square(x - pivot))
    for axes in passes:
        sums = jax.lax.reduce(sums, (jnp.zeros((), x.dtype),) * 2, _add_pairs, axes)
    return jnp.stack(sums)


def _add_pairs(pair: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    return pair[0] + other[0], pair[1] + other[1]


@_sums.defjvp
def _sums_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    x, pivot = primals
    slope = tangents[0]  # the pivot has none
    return _sums(x, pivot), jnp.stack([slope.sum(axis=(1, 2)), (2 * (x - pivot) * slope).sum(axis=(1, 2))])


@jax.custom_jvp
def _scale_and_shift(x: Array, pivot: Array, factor: Array, offset: Array) -> Array:
    """``(x - pivot) factor + offset``, where the arguments other than x have one value per image and channel."""
    return (x - pivot) * factor + offset


@_scale_and_shift.defjvp
def _scale_and_shift_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, pivot, factor, _ = primals
    slope, _, of_factor, of_offset = tangents
    # x and pivot apart: the gradient then sums products with x, which is in memory, not with x - pivot, which is not
    return _scale_and_shift(*primals), slope * factor + x * of_factor + (of_offset - pivot * of_factor)


def _rounded(dtype: DTypeLike, x: Array, *terms: Array) -> Array:
    return _scale_and_shift(x, *terms).astype(dtype)


def _swish(dtype: DTypeLike, x: Array, *terms: Array) -> Array:
    """Swish of `_rounded`. On a GPU, whose steps memory bounds, the gradient computes its slope again, twice."""
    branches = {"cuda": partial(_swish_recomputed, dtype), "default": partial(_swish_of_rounded, dtype)}
    return jax.lax.platform_dependent(x, *terms, **branches)


def _swish_of_rounded(dtype: DTypeLike, x: Array, *terms: Array) -> Array:
    return nn.swish(_rounded(dtype, x, *terms))


@partial(jax.checkpoint, static_argnums=0, prevent_cse=False)
def _swish_recomputed(dtype: DTypeLike, x: Array, *terms: Array) -> Array:
    """`_swish`, of which the gradient stores x and the terms only."""
    return _swish_in_two_passes(dtype, x, *terms)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _swish_in_two_passes(dtype: DTypeLike, x: Array, pivot: Array, factor: Array, offset: Array) -> Array:
    return _swish_of_rounded(dtype, x, pivot, factor, offset)


@_swish_in_two_passes.defjvp
def _swish_in_two_passes_jvp(
    dtype: DTypeLike, primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    """The gradient takes two passes over the pixels: one for its sums, by factor and offset, and one for that by x.

    The barriers keep them apart. Without the first, the two would share the slope of swish, and one store it for the
    other; without the second, XLA would compute the sums a second time, over the images too, for scale and bias.
    """
    x, pivot, factor, offset = primals
    slope, _, *others = tangents
    by_x = _slope_of_swish(x, pivot, factor, offset)
    by_others = _slope_of_swish(x, *jax.lax.optimization_barrier((pivot, factor, offset)))
    of_factor, of_offset = jax.lax.optimization_barrier(others)
    moved = by_x * (slope * factor) + by_others * (x * of_factor + (of_offset - pivot * of_factor))
    return _swish_in_two_passes(dtype, *primals), moved.astype(dtype)


def _slope_of_swish(x: Array, *terms: Array) -> Array:
    """The derivative of swish at ``(x - pivot) factor + offset``, in the precision of x."""
    at = _scale_and_shift(x, *terms)
    share = jax.nn.sigmoid(at)
    return share * (1 + at * (1 - share))
