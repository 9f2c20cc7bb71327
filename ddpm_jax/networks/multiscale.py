"""The network of Sohl-Dickstein et al. 2015 for images: convolutions at several scales, dense layers, bumps in time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int


def temporal_basis(
    index: Int[Array, " batch"], num_steps: int, count: int, width: float = 1.0
) -> Float[Array, "batch count"]:
    """Gaussian bumps over 0..T-1, evenly spaced from the first to the last, that sum to one at each time (Eqs. 62-63).

    `width` is their deviation in spacings: 1 in the paper, 1/2 in the released code.
    """
    spacing = (num_steps - 1) / (count - 1)
    distance = index[:, None] / spacing - jnp.arange(count)[None]
    return jax.nn.softmax(-0.5 * jnp.square(distance / width))


class MultiScaleConv(nn.Module):
    """The input's means over squares of 1, 2, 4, .. pixels, a convolution of each, and their sum at full resolution.

    2015: Appendix D.2.1. Scales that do not divide the image are left out.
    """

    features: int
    scales: int
    activation: Callable[[Array], Array] = nn.softplus
    each: bool = False  # the activation of each scale, and their mean, as in the released code

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width features"]:
        total = jnp.zeros(())
        for scale in (2**k for k in range(self.scales)):
            if x.shape[1] % scale or x.shape[2] % scale:
                continue
            small = nn.avg_pool(x, (scale, scale), (scale, scale))
            y = nn.Conv(self.features, (3, 3), name=f"conv_{scale}")(small)
            y = self.activation(y) / self.scales if self.each else y
            total = total + y.repeat(scale, axis=1).repeat(scale, axis=2)
        return total if self.each else self.activation(total)


class MultiScale(nn.Module):
    """Two pathways over the image, joined pixel by pixel, that give each pixel its coefficients of the bumps in time.

    The output has the centre and the variance's shift for each channel: ``parameterizations.shrinking`` reads it. The
    time enters by the bumps alone. The paper tells no widths: the defaults are the released code's, whose activations
    were all leaky rectifiers of slope 0.05, and whose convolutions had a bias for each place.
    """

    num_steps: int
    conv_layers: int = 4  # 0: no convolutions, as for MNIST
    conv_features: int = 20
    scales: int = 3
    dense_layers: int = 4  # 0: no dense pathway
    dense_hidden: int = 500
    dense_features: int = 2  # of each pixel
    upper_hidden: int = 20
    upper_layers: int = 2
    basis: int = 10
    basis_width: float = 1.0
    conv_activation: Callable[[Array], Array] = nn.softplus
    conv_each: bool = False  # see MultiScaleConv
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch height width channels"],
        index: Int[Array, " batch"],
        label: None = None,
        train: bool = False,
    ) -> Float[Array, "batch height width out"]:
        if self.conv_layers and self.scales < 1:
            raise ValueError(f"scales must be at least 1, got {self.scales}")
        ways = [way(x) for way, layers in ((self._conv, self.conv_layers), (self._dense, self.dense_layers)) if layers]
        h = jnp.concatenate([way / way.shape[-1] ** 0.5 for way in ways], axis=-1)
        for layer in range(self.upper_layers - 1):
            h = self.activation(nn.Dense(self.upper_hidden, name=f"upper_{layer}")(h))
        out = nn.Dense(2 * x.shape[-1] * self.basis, kernel_init=nn.initializers.zeros, name="readout")(h)
        coefficients = out.reshape(*x.shape[:-1], 2 * x.shape[-1], self.basis)
        bumps = temporal_basis(index, self.num_steps, self.basis, self.basis_width)
        return jnp.einsum("bhwcj,bj->bhwc", coefficients, bumps)

    def _conv(self, x: Array) -> Array:
        for layer in range(self.conv_layers):
            name, how = f"multiscale_{layer}", (self.conv_activation, self.conv_each)
            x = MultiScaleConv(self.conv_features, self.scales, *how, name=name)(x)
        return x

    def _dense(self, x: Array) -> Array:
        batch, height, width, _ = x.shape
        h = x.reshape(batch, -1)
        for layer in range(self.dense_layers - 1):
            h = self.activation(nn.Dense(self.dense_hidden, name=f"dense_{layer}")(h))
        h = nn.Dense(height * width * self.dense_features, name="dense_out")(h)
        return self.activation(h).reshape(batch, height, width, self.dense_features)
