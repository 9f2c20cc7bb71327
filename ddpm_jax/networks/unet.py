"""The U-Net of DDPM (Ho et al. 2020, Appendix B), with the same number of parameters: 35,746,307 for CIFAR-10.

With other options it is the U-Net of Nichol & Dhariwal 2021 or of Dhariwal & Nichol 2021 (ADM).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Num

from ddpm_jax.networks.layers import TINY, Attention, ResBlock, TimeEmbedding, conv3x3
from ddpm_jax.networks.normalization import GroupNorm
from ddpm_jax.networks.resampling import UpsampledConv, average, downsample, upsample


class UNet(nn.Module):
    """The U-Net: residual blocks at falling, then rising resolutions, skip connections, attention at some resolutions.

    The defaults are those of the CIFAR-10 model. Images may have any number of channels. Raises ValueError unless
    height and width are multiples of ``2 ** (len(multipliers) - 1)``, the channels of each level are a multiple of
    `groups`, and the channels where there is attention are a multiple of `heads` or `head_dim`.

    `dtype` is the type of the computation up to the last block. The last three layers (normalization, swish,
    convolution) and the inside of every normalization compute in float32, as in the released code of Nichol & Dhariwal
    2021. Parameters and output are float32 too.
    """

    width: int = 128
    """The width of the timestep embedding; times multipliers[0], the number of channels at full resolution."""
    multipliers: Sequence[int | float] = (1, 2, 2, 2)
    """The number of channels of each level, divided by `width`. Each level has half the size of the one above."""
    num_blocks: int = 2
    """The number of residual blocks of each level on the way down; there is one more on the way up."""
    attention: Sequence[int] = (16,)
    """The heights, in pixels, at which attention follows each block."""
    heads: int = 1
    """The number of attention heads, unless `head_dim` is given."""
    head_dim: int | None = None
    """The number of channels of an attention head."""
    dropout: float = 0.1
    """The dropout rate in the residual blocks."""
    out_channels: int | None = None
    """The number of output channels; None for that of the input. A learned variance needs twice that."""
    num_classes: int | None = None
    """The number of classes; None for a network without labels."""
    null_label: bool = True
    """Whether "no label" has an embedding: see `layers.TimeEmbedding`."""
    scale_shift: bool = False
    """Whether the time embedding scales and shifts, instead of being added: see `layers.ResBlock`."""
    groups: int = 32
    """The number of groups of the group normalization, at most half the channels: a group of one channel loses the mean
    of that channel over the image, and with it brightness and colors."""
    norm_eps: float = 1e-6
    """The number that is added to a variance before its root is taken."""
    residual_resampling: bool = False
    """Whether residual blocks halve and double the resolution, instead of convolutions."""
    down_padding: Literal[0, 1] = 0
    """The number of zeros before the first row and column in `resampling.downsample`."""
    cos_first: bool = False
    """The argument of `layers.timestep_embedding`."""
    frequency_shift: int = 1
    """The argument of `layers.timestep_embedding`."""
    time_scale: float = 1.0
    """The timestep embedding is that of the index times this number."""
    dtype: DTypeLike = jnp.float32
    """The type of the computation up to the last block."""
    remat: bool = False
    """Whether the backward pass computes the blocks again: less memory, a third more time."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        index: Num[Array, " batch"],
        label: Int[Array, " batch"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width out"]:
        """The output at the timestep index, integer or real, in [0, T - 1].

        A `label` of None, or of `num_classes`, means "no label". `train` enables dropout, which needs an rng named
        "dropout". The output is float32.
        """
        self._check(x)
        emb = self._time_embedding()(index if self.time_scale == 1 else index * self.time_scale, label)
        h = conv3x3(self._features()[0], self.dtype, "conv_in")(x.astype(self.dtype))
        h, skips = self._down(h, emb, train)
        h = self._block(h, emb, train, h.shape[-1], "mid_0", attend=True)
        h = self._block(h, emb, train, h.shape[-1], "mid_1", attend=False)
        h = self._up(h, skips, emb, train)
        h = GroupNorm(self.groups, jnp.float32, self.norm_eps, swish=True, name="norm_out")(h)
        return conv3x3(self.out_channels or x.shape[-1], jnp.float32, "conv_out", scale=TINY)(h)

    def _time_embedding(self) -> TimeEmbedding:
        waves = (self.cos_first, self.frequency_shift)
        options = (self.width, self.num_classes, self.dtype, *waves, self.null_label)
        return TimeEmbedding(*options, name="time")

    def _down(self, h: Array, emb: Array, train: bool) -> tuple[Array, list[Array]]:
        skips = [h]
        for level, features in enumerate(self._features()):
            for block in range(self.num_blocks):
                h = self._block(h, emb, train, features, f"down_{level}_{block}")
                skips.append(h)
            if level < len(self.multipliers) - 1:
                h = self._halved(h, emb, train, f"down_{level}")
                skips.append(h)
        return h, skips

    def _up(self, h: Array, skips: list[Array], emb: Array, train: bool) -> Array:
        for level, features in reversed(list(enumerate(self._features()))):
            for block in range(self.num_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(h, emb, train, features, f"up_{level}_{block}")
            if level > 0:
                h = self._doubled(h, emb, train, f"up_{level}")
        return h

    def _halved(self, h: Array, emb: Array, train: bool, name: str) -> Array:
        if self.residual_resampling:
            return self._residual(h.shape[-1], name, average)(h, emb, train)
        return downsample(h.shape[-1], self.dtype, name, self.down_padding)(h)

    def _doubled(self, h: Array, emb: Array, train: bool, name: str) -> Array:
        if self.residual_resampling:
            return self._residual(h.shape[-1], name, upsample)(h, emb, train)
        return UpsampledConv(h.shape[-1], self.dtype, name=name)(h)

    def _residual(self, features: int, name: str, resample: Callable[[Array], Array] | None = None) -> ResBlock:
        block = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock
        options = (features, self.groups, self.dropout, self.dtype, self.norm_eps, self.scale_shift, resample)
        return block(*options, name=name)

    def _block(self, h: Array, emb: Array, train: bool, features: int, name: str, attend: bool | None = None) -> Array:
        """A residual block, followed by attention if `attend`; by default where the height is in `attention`."""
        h = self._residual(features, name)(h, emb, train)
        if h.shape[1] in self.attention if attend is None else attend:
            attention = nn.remat(Attention) if self.remat else Attention
            h = attention(self._heads(features), self.groups, self.dtype, self.norm_eps, name=f"{name}_attention")(h)
        return h

    def _heads(self, features: int) -> int:
        if features % (self.head_dim or self.heads):
            split = f"heads={self.heads}" if self.head_dim is None else f"attention heads of head_dim={self.head_dim}"
            raise ValueError(f"{features} channels (width {self.width}) do not divide into {split}")
        return self.heads if self.head_dim is None else features // self.head_dim

    def _features(self) -> list[int]:
        """The channels of each level."""
        return [round(self.width * multiplier) for multiplier in self.multipliers]

    def _check(self, x: Array) -> None:
        factor = 2 ** (len(self.multipliers) - 1)
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} cannot be halved {len(self.multipliers) - 1} times: pad or "
                f"resize them to a multiple of {factor}, or choose fewer multipliers than {tuple(self.multipliers)}"
            )
        if self.width < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"width must be at least 1 and dropout in [0, 1), got {self.width} and {self.dropout}")
        for channels in self._features():
            if channels % self.groups:
                raise ValueError(
                    f"{channels} channels (width {self.width}) do not divide into groups={self.groups}: choose a width "
                    f"that is a multiple of {self.groups}"
                )
