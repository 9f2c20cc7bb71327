"""Gaussian kernels p(x_s | x_t), computed from an estimate of x_0 and a variance."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array


def at_data(s: ArrayLike, ndim: int) -> Array:
    """Whether s is 0, the time of the data: Boolean, of the shape of s with trailing axes of size one up to `ndim`."""
    return (jnp.asarray(s) == 0).reshape(jnp.shape(s) + (1,) * (ndim - jnp.ndim(s)))


def posterior_kernel(x_0: Callable, variance: Callable) -> Callable:
    """The rule for a Gaussian kernel p(x_s | x_t) from the rules for x_0 and the variance (Ho et al. 2020, Eq. 11).

    p(x_s | x_t) = N(mean of q(x_s | x_t, estimate of x_0), variance)
    """

    def kernel(process, output, x_t, t, s):
        posterior = process.posterior(x_t, x_0(process, output, x_t, t), t, s)
        return posterior._replace(variance=variance(process, output, x_t, t, s))

    return kernel
