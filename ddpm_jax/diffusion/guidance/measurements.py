"""Linear inverse problems: x_0 from a measurement y = A x_0 + sigma z, by DPS, PiGDM and MMPS.

PiGDM and MMPS are networks whose output is E[x_0 | x_t, y], to be used with `parameterizations.x0` and any sampler:

    E[x_0 | x_t, y] = x_0 + (1 - alpha_bar_t) / sqrt(alpha_bar_t) gradient of log p(y | x_t)

which is Tweedie's formula, where x_0 is the estimate E[x_0 | x_t] of the network. They differ in the covariance of
x_0 given x_t that they take for p(y | x_t) = N(A x_0, sigma^2 + A covariance A^T).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from ddpm_jax.diffusion.distributions import Normal
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler


class LinearMeasurement(NamedTuple):
    """A measurement y = A x_0 + sigma z, z ~ N(0, 1), of one example x_0."""

    forward: Callable[[Array], Array]
    """``forward(x)`` -> A x for one example, without a batch axis: any linear function."""
    shape: tuple[int, ...]
    """The shape of x."""
    sigma: ArrayLike
    """The standard deviation of the noise in y, above 0."""

    def transpose(self, y: Array) -> Array:
        """A^T y for one example: from the shape of a measurement to the shape of an example."""
        (x,) = jax.linear_transpose(self.forward, jax.ShapeDtypeStruct(self.shape, y.dtype))(y)
        return x

    def observe(self, keys: Key[Array, " batch"], x_0: Float[Array, "batch *shape"]) -> Float[Array, "batch *measured"]:
        """A measurement of each example, with its noise."""
        return Normal(jax.vmap(self.forward)(x_0), jnp.square(jnp.asarray(self.sigma, x_0.dtype))).sample(keys)


def masked(known: Bool[np.ndarray, "*shape"], sigma: ArrayLike) -> LinearMeasurement:
    """Inpainting: y has the elements of x for which `known` is true, as a vector."""
    rows = np.flatnonzero(known)
    return LinearMeasurement(lambda x: x.reshape(-1)[rows], np.shape(known), sigma)


def pooled(shape: tuple[int, int, int], factor: int, sigma: ArrayLike) -> LinearMeasurement:
    """Super-resolution: y has the means of blocks of factor x factor pixels.

    Raises ValueError if the factor does not divide height and width.
    """
    height, width, channels = shape
    if factor < 1 or height % factor or width % factor:
        raise ValueError(f"--factor {factor} does not divide the {height}x{width} pixels of the images")
    blocks = (height // factor, factor, width // factor, factor, channels)
    return LinearMeasurement(lambda x: x.reshape(blocks).mean(axis=(1, 3)), shape, sigma)


def blurred(shape: tuple[int, int, int], width: float, sigma: ArrayLike) -> LinearMeasurement:
    """Deblurring: y is x blurred by a Gaussian whose standard deviation is `width` pixels, above 0.

    Separable; at the edges the weights of the pixels that exist are scaled to sum to one. Raises ValueError for a width
    that is not positive.
    """
    if not width > 0:
        raise ValueError(f"--blur must be above 0, got {width}")
    rows, columns = (_gaussian_weights(side, width) for side in shape[:2])
    return LinearMeasurement(lambda x: jnp.einsum("ih,jw,hwc->ijc", rows, columns, x), shape, sigma)


def _gaussian_weights(side: int, width: float) -> np.ndarray:
    """Row i has the weights of the pixels around pixel i."""
    offsets = np.arange(side)[:, None] - np.arange(side)[None]
    weights = np.exp(-0.5 * np.square(offsets / width))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in grey (ITU-R BT.601), as in Pillow."""


def grey(shape: tuple[int, int, int], sigma: ArrayLike) -> LinearMeasurement:
    """Colorization: y is the grey image, [height, width, 1]. Raises ValueError unless the images have 3 channels."""
    if shape[-1] != 3:
        raise ValueError(f"colorize needs images with 3 channels, and those of this run have {shape[-1]}")
    weights = np.asarray(LUMA, np.float32)
    return LinearMeasurement(lambda x: jnp.einsum("hwc,c->hw", x, weights)[..., None], shape, sigma)


def mmps(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    measurement: LinearMeasurement,
    y: Float[Array, "batch *measured"],
    iterations: int = 5,
) -> Network:
    """Moment matching posterior sampling (Rozet et al. 2024): a network with output E[x_0 | x_t, y].

        covariance = (1 - alpha_bar_t) / sqrt(alpha_bar_t) Jacobian of x_0 by x_t

    This is the covariance of x_0 given x_t, so for Gaussian data and the best network the output is exact. The linear
    system is solved by at most `iterations` steps of conjugate gradients, each with a vector-Jacobian product of the
    network; as many as y has elements solve it exactly. Use the result with `parameterizations.x0`. x_0 is estimated
    without clipping; clip the result by `parameterizations.clipped`.
    """

    def covariance(to_x_t: Callable, per_x_t: Array, variance: Array) -> Callable:
        return lambda v: per_x_t * to_x_t(v)

    return _given(process, parameterization, network, measurement, y, covariance, iterations)


def pigdm(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    measurement: LinearMeasurement,
    y: Float[Array, "batch *measured"],
    iterations: int = 20,
) -> Network:
    """Pseudoinverse guidance (Song et al. 2023, "PiGDM"): a network with output E[x_0 | x_t, y], approximately.

        covariance = (1 - alpha_bar_t) I

    That of x_0 given x_t for data N(0, 1). For other data the samples are biased, whatever the number of steps. The
    score is that of the paper's Eq. 7 without the adaptive weights of its Section 3.3. The system is solved by at most
    `iterations` steps of conjugate gradients, without the network. Use the result as that of `mmps`.
    """

    def covariance(to_x_t: Callable, per_x_t: Array, variance: Array) -> Callable:
        return lambda v: variance * v

    return _given(process, parameterization, network, measurement, y, covariance, iterations)


def _given(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    measurement: LinearMeasurement,
    y: Array,
    covariance: Callable[[Callable, Array, Array], Callable],
    iterations: int,
) -> Network:
    """The network with output x_0 + per_x_t gradient; ``covariance(to_x_t, per_x_t, variance)`` multiplies a vector."""
    estimate = estimator(parameterization.unclipped(), network)

    def one(x_t: Array, t: Array, label: Array | None, y: Array) -> Array:
        alpha_bar, variance = process.schedule.at(t, 0)
        per_x_t = variance / jnp.sqrt(alpha_bar)
        x_0, pull, _ = jax.vjp(lambda x: estimate(x, t, label), x_t, has_aux=True)
        times_covariance = covariance(lambda v: pull(v)[0], per_x_t, variance)
        solution = solve(measurement, times_covariance, y - measurement.forward(x_0), iterations)
        return x_0 + per_x_t * pull(measurement.transpose(solution))[0]

    def given(x_t: Array, t: ArrayLike, condition: Array | None) -> Array:
        return jax.vmap(one)(x_t, jnp.broadcast_to(jnp.asarray(t), x_t.shape[:1]), condition, y)

    return given


def estimator(
    parameterization: Parameterization, network: Network
) -> Callable[[Array, Array, Array | None], tuple[Array, Array]]:
    """``estimate(x_t, t, label)`` -> (E[x_0 | x_t], output of the network) of one example, without a batch axis."""

    def estimate(x_t: Array, t: Array, label: Array | None) -> tuple[Array, Array]:
        output = network(x_t[None], t, None if label is None else label[None])
        return parameterization.x_0(output, x_t[None], t)[0], output[0]

    return estimate


def solve(
    measurement: LinearMeasurement, times_covariance: Callable[[Array], Array], residual: Array, iterations: int
) -> Array:
    """The solution u of (sigma^2 + A covariance A^T) u = residual, by at most `iterations` of conjugate gradients.

    For one example: the residual and u have the shape of a measurement.
    """
    sigma = jnp.asarray(measurement.sigma, residual.dtype)

    def matrix(u: Array) -> Array:
        return jnp.square(sigma) * u + measurement.forward(times_covariance(measurement.transpose(u)))

    solution, _ = cg(matrix, residual, tol=1e-5, maxiter=iterations)
    return solution


def dps(
    sampler: Sampler,
    parameterization: Parameterization,
    network: Network,
    measurement: LinearMeasurement,
    y: Float[Array, "batch *measured"],
    condition: Array | None = None,
    scale: ArrayLike = 1.0,
) -> Sampler:
    """Diffusion posterior sampling (Chung et al. 2023, Algorithm 1): a step of the sampler, and one towards y.

        x_s = step(x_t) - scale gradient by x_t of |y - A x_0(x_t)|

    `sampler` has the same network, and should be `samplers.ddpm`. The gradient of the norm, not of its square, has a
    length that does not depend on sigma: the samples are not those of p(x_0 | y), and depend on scale and on the number
    of steps. x_0(x_t) is clipped where the parameterization clips.
    """
    estimate = estimator(parameterization, network)

    def distance(x_t: Array, t: Array, label: Array | None, y: Array) -> Array:
        x_0, _ = estimate(x_t, t, label)
        squared = jnp.square(y - measurement.forward(x_0)).sum()
        return jnp.sqrt(jnp.maximum(squared, 1e-12))  # the root has no gradient at 0

    def step(keys: Array, x_t: Array, memory: Any, t: Array, s: Array) -> tuple[Array, Any]:
        x_s, memory = sampler.step(keys, x_t, memory, t, s)
        gradient = jax.vmap(jax.grad(distance), (0, None, 0, 0))(x_t, t, condition, y)
        return x_s - scale * gradient, memory

    return sampler._replace(step=step)
