"""A classifier of noisy images: the half of the U-Net that goes down, and the mean over the pixels."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num

from ddpm_jax.networks.layers import ResBlock, TimeEmbedding, conv3x3, dense
from ddpm_jax.networks.normalization import GroupNorm
from ddpm_jax.networks.resampling import downsample

FEATURES = "features"
"""The name under which a classifier sows the vectors that metrics of samples compare."""


class NoisyClassifier(nn.Module):
    """Logits of the classes of an image with noise, for classifier guidance (after Dhariwal & Nichol 2021, Section 4).

    Residual blocks with the time embedding at falling resolutions, then normalization, swish, the mean over the pixels
    and a dense layer. Images may have any size of at least ``2 ** (len(multipliers) - 1)`` pixels. The channels of each
    level must be a multiple of `groups`. The input of the last layer, [batch, channels of the last level], is sown as
    `FEATURES` in the collection "intermediates".
    """

    classes: int
    width: int = 32  # channels at full resolution
    multipliers: Sequence[int] = (1, 2)  # channels of each level / width; each level halves the size
    num_blocks: int = 1  # residual blocks per level
    groups: int = 8  # of the group normalization
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32  # of the computation up to the last normalization

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        index: Num[Array, " batch"],
        label: None = None,
        train: bool = False,
    ) -> Float[Array, "batch classes"]:
        """The logits at the timestep index, in [0, T - 1]. `train` enables dropout. `label` is not used."""
        emb = TimeEmbedding(self.width, dtype=self.dtype, name="time")(index, None)
        h = conv3x3(self.width, self.dtype, "conv_in")(x.astype(self.dtype))
        for level, multiplier in enumerate(self.multipliers):
            for block in range(self.num_blocks):
                options = (self.width * multiplier, self.groups, self.dropout, self.dtype, 1e-6, False)
                h = ResBlock(*options, name=f"block_{level}_{block}")(h, emb, train)
            if level < len(self.multipliers) - 1:
                h = downsample(h.shape[-1], self.dtype, f"down_{level}")(h)
        h = GroupNorm(self.groups, jnp.float32, swish=True, name="norm_out")(h)
        h = h.mean(axis=(1, 2))
        self.sow("intermediates", FEATURES, h)
        return dense(self.classes, jnp.float32, "logits")(h)
