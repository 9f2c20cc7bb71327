"""Kernels p(x_s | x_t) made of an estimate of x_0 and a variance."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array


def at_data(s: ArrayLike, ndim: int) -> Array:
    """Whether s is 0, with trailing axes of size one up to `ndim`."""
    return (jnp.asarray(s) == 0).reshape(jnp.shape(s) + (1,) * (ndim - jnp.ndim(s)))


def posterior_kernel(x_0: Callable, variance: Callable) -> Callable:
    """The rule for the Gaussian kernel with the mean of q(x_s | x_t, x_0) at the estimate of x_0, and this variance.

    Ho et al. 2020, Eq. 11.
    """

    def kernel(process, output, x_t, t, s):
        posterior = process.posterior(x_t, x_0(process, output, x_t, t), t, s)
        return posterior._replace(variance=variance(process, output, x_t, t, s))

    return kernel
