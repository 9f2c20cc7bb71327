"""The network of Sohl-Dickstein et al. 2015 for images: multi-scale convolutions, dense layers, a temporal basis."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Num


def temporal_basis(
    index: Num[Array, " batch"], num_steps: int, count: int, width: float = 1.0, log_time: bool = False
) -> Float[Array, "batch count"]:
    """The values at `index` of `count` Gaussian bumps over the timesteps, normalized to sum to one (2015, Eqs. 62-63).

        bump_j(index) ~ exp(-((count - 1) position - j)^2 / (2 width^2)),    j = 0 .. count - 1
        position = index / (num_steps - 1),    with `log_time`: log(index + 1) / log(num_steps)

    `num_steps` is T, and `count` must be at least 2. The centres are evenly spaced from index 0 to T - 1, in
    time or in its logarithm; the index may be real. `width` is the standard deviation in units of the spacing: 1 in the
    paper, 1/2 in the released code.
    """
    last = max(num_steps, 2)  # of a single step the index is 0, and so is its position
    position = jnp.log1p(index) / jnp.log(last) if log_time else index / (last - 1)
    distance = position[:, None] * (count - 1) - jnp.arange(count)[None]
    return jax.nn.softmax(-0.5 * jnp.square(distance / width))


class MultiScaleConv(nn.Module):
    """The sum of convolutions at several scales: the input is averaged over squares of side 1, 2, 4, .. pixels.

        paper            activation(sum over scales of upsampled conv(averaged x))
        average_scales   mean over scales of upsampled activation(conv(averaged x))

    2015, Appendix D.2.1, and the released code. Scales that do not divide the height and width are left out.
    """

    features: int
    scales: int
    activation: Callable[[Array], Array] = nn.softplus
    average_scales: bool = False
    """Whether the scales are averaged, as in the released code."""
    untied_biases: bool = False
    """Whether each pixel has a bias of its own, as in the released code."""

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width features"]:
        sizes = [2**k for k in range(self.scales) if x.shape[1] % 2**k == x.shape[2] % 2**k == 0]
        scaled = [self._at_scale(x, size) for size in sizes]
        if self.average_scales:
            return sum(map(self.activation, scaled), jnp.zeros(())) / len(scaled)
        return self.activation(sum(scaled, jnp.zeros(())))

    def _at_scale(self, x: Array, size: int) -> Array:
        """Averages x over squares of side `size`, convolves the result, and repeats it to full resolution."""
        batch, height, width, channels = x.shape
        squares = x.reshape(batch, height // size, size, width // size, size, channels)
        y = nn.Conv(self.features, (3, 3), use_bias=not self.untied_biases, name=f"conv_{size}")(
            squares.mean(axis=(2, 4))
        )
        if self.untied_biases:
            # as a part of the convolution, oneDNN adds a bias for each pixel fourteen times slower
            y = jax.lax.optimization_barrier(y)
            y += self.param(f"bias_{size}", nn.initializers.zeros, y.shape[1:])[None]
        shape = (*squares.shape[:5], self.features)
        return jnp.broadcast_to(y[:, :, None, :, None], shape).reshape(batch, height, width, self.features)


class TemporalReadout(nn.Module):
    """A linear layer whose kernel and bias are combinations of `bumps`: the time is summed out before the pixels.

        output = sum over j of (h kernel_j + bias_j) bump_j,    as the paper writes it
               = h (sum over j of kernel_j bump_j) + sum over j of bias_j bump_j

    The second line costs the same for any number of bumps. The initial output is zero.
    """

    features: int

    @nn.compact
    def __call__(
        self, h: Float[Array, "batch height width hidden"], bumps: Float[Array, "batch basis"]
    ) -> Float[Array, "batch height width features"]:
        hidden, count = h.shape[-1], bumps.shape[-1]
        kernel = self.param("kernel", nn.initializers.zeros, (hidden, self.features * count))
        bias = self.param("bias", nn.initializers.zeros, (self.features * count,))
        kernels = jnp.einsum("hfj,bj->bhf", kernel.reshape(hidden, self.features, count), bumps)
        biases = jnp.einsum("fj,bj->bf", bias.reshape(self.features, count), bumps)
        return jnp.einsum("bxyh,bhf->bxyf", h, kernels) + biases[:, None, None]


class MultiScale(nn.Module):
    """The network of 2015 for images: computes for each pixel the coefficients of its output in a temporal basis.

        output = sum over j of coefficients_j(x) bump_j(index)        (2015, Appendix D.2.1)

    The coefficients are computed from the features of two pathways, convolutional and dense. By default the output has
    twice the channels of x, z_mu and then z_Sigma: see ``parameterizations.shrinking`` and ``shifted``. The index
    enters only through the bumps, and may be real. The paper gives no layer widths: the defaults are those of the
    released code, in which all activations are leaky rectifiers of slope 0.05 and the convolutions have a bias per
    pixel. Raises ValueError for `upper_layers` below 1, `basis` below 2, a convolutional pathway with `scales` below 1,
    or no pathway at all.

    Ten bumps over T = 1000 steps cannot follow the steps near the data, where the output changes like 1 / t: on a pixel
    whose value is known, outputs linear in x_t reach at most K = 1.6 bits, with 100 bumps 2.8, with ten in `log_time`
    2.9 (beta_1 = 0.001 and the parameterization `shifted`). The dense pathway alone, without `pixel_input`, passes the
    values of all pixels through a layer of shared units, and cannot remove the noise of each.
    """

    num_steps: int
    """T, the range of the temporal basis."""
    out_channels: int | None = None
    """The number of output channels; None for twice those of x, z_mu and z_Sigma."""
    conv_layers: int = 4
    """The number of convolutional layers; 0 for no convolutional pathway, as for MNIST."""
    conv_features: int = 20
    """The number of channels of each convolutional layer."""
    scales: int = 3
    """The number of scales of each convolutional layer."""
    dense_layers: int = 4
    """The number of dense layers; 0 for no dense pathway."""
    dense_hidden: int = 500
    """The number of units of each dense layer but the last."""
    dense_features: int = 2
    """The number of features of a pixel that the dense pathway returns."""
    pixel_input: bool = False
    """Whether the pixel itself is one more of its features."""
    upper_hidden: int = 20
    """The number of units of each of the layers above the pathways, which all pixels share."""
    upper_layers: int = 2
    """The number of these layers, the readout included."""
    basis: int = 10
    """The number of bumps of `temporal_basis`."""
    basis_width: float = 1.0
    """The argument `width` of `temporal_basis`."""
    log_time: bool = False
    """The argument of `temporal_basis`."""
    conv_activation: Callable[[Array], Array] = nn.softplus
    conv_average_scales: bool = False
    """That of `MultiScaleConv`."""
    untied_biases: bool = False
    """That of `MultiScaleConv`."""
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        index: Num[Array, " batch"],
        label: None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width out"]:
        """The output at the timestep index, integer or real, in [0, T - 1]. `label` and `train` have no effect."""
        if self.upper_layers < 1 or self.basis < 2:
            raise ValueError(
                f"upper_layers must be at least 1 and basis at least 2, got {self.upper_layers} and {self.basis}"
            )
        if self.conv_layers and self.scales < 1:
            raise ValueError(f"scales must be at least 1, got {self.scales}")
        if not (self.conv_layers or self.dense_layers or self.pixel_input):
            raise ValueError("no pathway: conv_layers or dense_layers must be above 0, or pixel_input true")
        pathways = ((self._conv, self.conv_layers), (self._dense, self.dense_layers))
        outputs = [pathway(x) for pathway, layers in pathways if layers] + [x] * self.pixel_input
        h = jnp.concatenate([output / output.shape[-1] ** 0.5 for output in outputs], axis=-1)
        for layer in range(self.upper_layers - 1):
            h = self.activation(nn.Dense(self.upper_hidden, name=f"upper_{layer}")(h))
        bumps = temporal_basis(index, self.num_steps, self.basis, self.basis_width, self.log_time)
        return TemporalReadout(self.out_channels or 2 * x.shape[-1], name="readout")(h, bumps)

    def _conv(self, x: Array) -> Array:
        for layer in range(self.conv_layers):
            options = (self.conv_activation, self.conv_average_scales, self.untied_biases)
            x = MultiScaleConv(self.conv_features, self.scales, *options, name=f"multiscale_{layer}")(x)
        return x

    def _dense(self, x: Array) -> Array:
        batch, height, width, _ = x.shape
        h = x.reshape(batch, -1)
        for layer in range(self.dense_layers - 1):
            h = self.activation(nn.Dense(self.dense_hidden, name=f"dense_{layer}")(h))
        h = nn.Dense(height * width * self.dense_features, name="dense_out")(h)
        return self.activation(h).reshape(batch, height, width, self.dense_features)
