"""The Parzen-window estimate of the log-likelihood (Goodfellow et al. 2014; Sohl-Dickstein et al. 2015, for MNIST)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WIDTHS = tuple(np.logspace(-1, 0, 10).tolist())
"""The standard deviations from which `parzen` chooses the best one on held-out data."""


def log_density(
    x: Float[Array, "num dims"], centres: Float[Array, "count dims"], width: float | Float[Array, ""]
) -> Float[Array, " num"]:
    """The log density at each x, in nats, of a uniform mixture of Gaussians around the centres.

    log(1 / count sum_j N(x; centre_j, width^2 I))

    It needs memory for num times count numbers.
    """
    # by default accelerators round the factors of a matrix product, which would change the estimate
    dot = partial(jnp.matmul, precision="highest")
    distance = jnp.square(x).sum(1)[:, None] + jnp.square(centres).sum(1)[None] - 2 * dot(x, centres.T)
    scale = jnp.log(len(centres)) + 0.5 * x.shape[1] * jnp.log(2 * jnp.pi * jnp.square(width))
    return jax.nn.logsumexp(-0.5 * distance / jnp.square(width), axis=1) - scale


def best_width(
    samples: Float[Array, "count dims"], held_out: Float[Array, "some dims"], widths: tuple[float, ...] = WIDTHS
) -> float:
    """The width of Gaussians around the samples for which the likelihood of `held_out` is highest."""
    return max(widths, key=lambda width: _log_densities(held_out, samples, width).mean())


def _log_densities(
    x: Float[Array, "num dims"], centres: Float[Array, "count dims"], width: float
) -> Float[np.ndarray, " num"]:
    """`log_density`, a few x at a time."""
    parts = [_jitted(x[first : first + 100], centres, width) for first in range(0, len(x), 100)]
    return np.concatenate([np.asarray(part) for part in parts])


_jitted = jax.jit(log_density)


def parzen(
    samples: Float[Array, "count dims"],
    held_out: Float[Array, "some dims"],
    test: Float[Array, "num dims"],
    widths: tuple[float, ...] = WIDTHS,
) -> tuple[float, float | None, float]:
    """(mean, standard error, width): the log-likelihood of `test` under Gaussians around the samples, nats per example.

    Pixels are in [0, 1]. The width is the one of `widths` with the highest likelihood on `held_out`. The standard error
    is None for a single test example. The protocol of Goodfellow et al. 2014 has 10,000 samples, 1,000 held-out images
    and 10,000 test images; the estimate depends on these numbers. It is a poor measure of the quality of images (Theis
    et al. 2016).
    """
    width = best_width(samples, held_out, widths)
    values = _log_densities(test, samples, width)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error, width
