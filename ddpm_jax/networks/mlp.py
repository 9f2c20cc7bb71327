"""A residual perceptron with a timestep embedding, for points in the plane and other short vectors."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Num

from ddpm_jax.networks.layers import TINY, TimeEmbedding, dense


class MLP(nn.Module):
    """An MLP of `depth` residual layers, with the time embedding added in each. The initial output is almost zero.

    `dtype` is the type of the computation up to the last layer. That layer, the parameters and the output are float32.
    """

    width: int = 128
    """The number of units of each layer."""
    depth: int = 4
    """The number of residual layers."""
    out_features: int | None = None
    """The number of output features; None for that of the input."""
    num_classes: int | None = None
    """The number of classes; None for a network without labels."""
    dtype: DTypeLike = jnp.float32
    """The type of the computation up to the last layer."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch features"],
        index: Num[Array, " batch"],
        label: Int[Array, " batch"] | None = None,
        train: bool = False,
    ) -> Float[Array, "batch out"]:
        """The output at the timestep index, integer or real, in [0, T - 1]. `train` has no effect on this network."""
        emb = nn.swish(TimeEmbedding(self.width, self.num_classes, self.dtype, name="time")(index, label))
        h = dense(self.width, self.dtype, "dense_in")(x.astype(self.dtype))
        for layer in range(self.depth):
            shift = dense(self.width, self.dtype, f"time_{layer}")(emb)
            h = h + dense(self.width, self.dtype, f"dense_{layer}")(nn.swish(h + shift))
        return dense(self.out_features or x.shape[-1], jnp.float32, "dense_out", scale=TINY)(h)
