"""The loss of a classifier of noisy examples, for guidance."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.guidance.classifier import labelled
from ddpm_jax.diffusion.losses.reductions import Draw, diffuse, uniform
from ddpm_jax.diffusion.types import Network, Parameterization, Process


def classification(
    key: Key[Array, ""],
    process: Process,
    classifier: Callable[..., Array],
    x_0: Float[Array, "batch *shape"],
    label: Int[Array, " batch"],
    draw: Draw = uniform,
) -> Float[Array, " batch"]:
    """The cross-entropy of a `guidance.Classifier` at one t per example (Dhariwal & Nichol 2021, Section 4).

        x_t ~ q(x_t | x_0),    loss = -log p(label | x_t)

    In nats. t is that of `draw`, by default t ~ U(1..T). The loss is least for the true p(label | x_t), whatever the
    weights of the t.
    """
    t, _, x_t = diffuse(key, process, x_0, draw)
    return -classifier(x_t, t, label)


def cross_entropy(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Int[Array, " batch"] | None = None,
    draw: Draw = uniform,
) -> Float[Array, " batch"]:
    """`classification` as the loss of an experiment, for the parameterization `parameterizations.classes`.

    The labels are the condition, which the network is not given. Raises ValueError without them.
    """
    if condition is None:
        raise ValueError("a classifier is trained with labels: choose data that have them")
    return classification(key, process, labelled(network), x_0, condition, draw)


def often_clean(share: float) -> Draw:
    """The draw of t = 1 with the probability `share`, and of a uniform t otherwise.

    For a classifier that is to be accurate on images without noise, too, of which a uniform t has few.
    Other losses would be weighted by it: it is for those whose optimum does not depend on the weights of the t.
    """

    def draw(key: Key[Array, ""], batch: int, num_steps: int) -> Int[Array, " batch"]:
        key_clean, key_t = jax.random.split(key)
        clean = jax.random.bernoulli(key_clean, share, (batch,))
        return jnp.where(clean, 1, uniform(key_t, batch, num_steps))

    return draw
