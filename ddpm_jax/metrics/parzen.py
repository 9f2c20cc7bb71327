"""The Parzen-window estimate of the log-likelihood (Goodfellow et al. 2014; Sohl-Dickstein et al. 2015, for MNIST)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WIDTHS = tuple(np.logspace(-1, 0, 10).tolist())
"""The standard deviations from which `parzen` chooses the best one on held-out data."""


def log_density(
    x: Float[Array, "num dims"], centres: Float[Array, "count dims"], width: float, batch_size: int = 100
) -> Float[np.ndarray, " num"]:
    """The log density at each x, in nats, of a uniform mixture of Gaussians around the centres.

    log(1 / count sum_j N(x; centre_j, width^2 I))
    """
    # by default accelerators round the factors of a matrix product, which would change the estimate
    dot = partial(jnp.matmul, precision="highest")

    @jax.jit
    def density(batch):
        distance = jnp.square(batch).sum(1)[:, None] + jnp.square(centres).sum(1)[None] - 2 * dot(batch, centres.T)
        return jax.nn.logsumexp(-0.5 * distance / width**2, axis=1)

    parts = [density(x[first : first + batch_size]) for first in range(0, len(x), batch_size)]
    scale = np.log(len(centres)) + 0.5 * x.shape[1] * np.log(2 * np.pi * width**2)
    return np.concatenate([np.asarray(part) for part in parts]) - scale


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
    width = max(widths, key=lambda width: log_density(held_out, samples, width).mean())
    values = log_density(test, samples, width)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error, width
