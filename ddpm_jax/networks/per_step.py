"""The networks of Sohl-Dickstein et al. 2015 for points and bits: shared hidden layers, one readout per timestep."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num


class Readout(nn.Module):
    """One linear layer per timestep: `num_steps` weight matrices and biases. The initial output is zero.

    Raises ValueError for a real-valued index, since there is no layer between two timesteps.
    """

    features: int
    num_steps: int

    @nn.compact
    def __call__(self, h: Float[Array, "batch hidden"], index: Num[Array, " batch"]) -> Float[Array, "batch features"]:
        if not jnp.issubdtype(index.dtype, jnp.integer):
            raise ValueError(
                f"this network has one readout per timestep: t must be an integer, got {index.dtype}; sample with "
                "--spacing even and another sampler than pndm or dpm++2s, which evaluate it between these times"
            )
        kernel = self.param("kernel", nn.initializers.zeros, (self.num_steps, h.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.num_steps, self.features))
        return jnp.einsum("bh,bhf->bf", h, kernel[index]) + bias[index]


class RadialBasis(nn.Module):
    """Normalized radial basis functions with learned centres and widths, and one readout per timestep.

    2015, Appendix D.1.1, where `hidden` is 16. The output has twice the features of x, z_mu and then z_Sigma: see
    ``parameterizations.shrinking`` and ``shifted``. Raises ValueError for a real-valued index.
    """

    num_steps: int
    """T, the number of readouts."""
    hidden: int = 16
    """The number of basis functions."""
    spread: float = 1.5
    """The standard deviation of the initial centres."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch features"], index: Num[Array, " batch"], label: None = None, train: bool = False
    ) -> Float[Array, "batch out"]:
        """The output at the timestep index, an integer in [0, T - 1]. `label` and `train` have no effect."""
        centres = self.param("centres", nn.initializers.normal(self.spread), (self.hidden, x.shape[-1]))
        log_width = self.param("log_width", nn.initializers.zeros, (self.hidden,))
        distance = jnp.square(x[:, None] - centres[None]).sum(axis=-1)
        h = nn.softmax(-0.5 * distance * jnp.exp(-2 * log_width)[None])
        return Readout(2 * x.shape[-1], self.num_steps, name="readout")(h, index)


class SigmoidMLP(nn.Module):
    """Dense layers with sigmoids, and one readout per timestep (2015, Appendix D.1.2: three layers of 50 units).

    The output has one value per bit: see ``parameterizations.logits``. Raises ValueError for a real-valued index.
    """

    num_steps: int
    """T, the number of readouts."""
    hidden: tuple[int, ...] = (50, 50, 50)
    """The number of units of each layer."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch bits"], index: Num[Array, " batch"], label: None = None, train: bool = False
    ) -> Float[Array, "batch bits"]:
        """The output at the timestep index, an integer in [0, T - 1]. `label` and `train` have no effect."""
        h = x
        for layer, width in enumerate(self.hidden):
            h = nn.sigmoid(nn.Dense(width, name=f"dense_{layer}")(h))
        return Readout(x.shape[-1], self.num_steps, name="readout")(h, index)
