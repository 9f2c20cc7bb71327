"""The networks of Sohl-Dickstein et al. 2015 for points and bits: shared hidden layers, a readout for each timestep."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int


class Readout(nn.Module):
    """A linear layer for each of `num_steps` timesteps; it starts at zero."""

    features: int
    num_steps: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch hidden"], index: Int[Array, " batch"]) -> Float[Array, "batch features"]:
        kernel = self.param("kernel", nn.initializers.zeros, (self.num_steps, h.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.num_steps, self.features))
        return jnp.einsum("bh,bhf->bf", h, kernel[index]) + bias[index]


class RadialBasis(nn.Module):
    """Normalised radial basis functions, whose centres and widths are learned, and a readout for each timestep.

    2015: Appendix D.1.1, with 16 of them. The output has the centre and the variance's shift for each input.
    """

    num_steps: int
    hidden: int = 16
    spread: float = 1.5  # of the first centres

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch features"], index: Int[Array, " batch"], label: None = None, train: bool = False
    ) -> Float[Array, "batch out"]:
        centres = self.param("centres", nn.initializers.normal(self.spread), (self.hidden, x.shape[-1]))
        log_width = self.param("log_width", nn.initializers.zeros, (self.hidden,))
        distance = jnp.square(x[:, None] - centres[None]).sum(axis=-1)
        h = nn.softmax(-0.5 * distance * jnp.exp(-2 * log_width)[None])
        return Readout(2 * x.shape[-1], self.num_steps, name="readout")(h, index)


class SigmoidMLP(nn.Module):
    """Dense layers with sigmoids and a readout for each timestep (2015: Appendix D.1.2: three layers of 50)."""

    num_steps: int
    hidden: tuple[int, ...] = (50, 50, 50)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch bits"], index: Int[Array, " batch"], label: None = None, train: bool = False
    ) -> Float[Array, "batch bits"]:
        h = x
        for layer, width in enumerate(self.hidden):
            h = nn.sigmoid(nn.Dense(width, name=f"dense_{layer}")(h))
        return Readout(x.shape[-1], self.num_steps, name="readout")(h, index)
