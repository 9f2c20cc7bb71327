"""A perceptron told the timestep, for points in the plane and other short vectors."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ddpm_jax.networks.layers import TINY, TimeEmbedding, dense


class MLP(nn.Module):
    """Residual dense layers with the time embedding added to each; starts at an output of almost zero."""

    width: int = 128
    depth: int = 4
    out_features: int | None = None  # None: as many as the input
    num_classes: int | None = None
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch features"],
        index: Int[Array, " batch"],
        label: Int[Array, " batch"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch out"]:
        """The output at timestep index 0..T-1. `train` is taken for the U-Net's sake: nothing here depends on it."""
        emb = nn.swish(TimeEmbedding(self.width, self.num_classes, self.dtype, name="time")(index, label))
        h = dense(self.width, self.dtype, "dense_in")(x.astype(self.dtype))
        for layer in range(self.depth):
            shift = dense(self.width, self.dtype, f"time_{layer}")(emb)
            h = h + dense(self.width, self.dtype, f"dense_{layer}")(nn.swish(h + shift))
        return dense(self.out_features or x.shape[-1], self.dtype, "dense_out", scale=TINY)(h).astype(jnp.float32)
