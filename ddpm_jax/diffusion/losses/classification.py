"""The loss of a classifier of noisy examples, for guidance."""

from collections.abc import Callable

from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.losses.reductions import diffuse
from ddpm_jax.diffusion.types import Process


def classification(
    key: Key[Array, ""],
    process: Process,
    classifier: Callable[..., Array],
    x_0: Float[Array, "batch *shape"],
    label: Int[Array, " batch"],
) -> Float[Array, " batch"]:
    """The cross-entropy of a `guidance.Classifier` at one uniform t per example (Dhariwal & Nichol 2021, Section 4).

        x_t ~ q(x_t | x_0),    t ~ U(1..T),    loss = -log p(label | x_t)

    In nats. Least for the true p(label | x_t), whatever the weights of the t.
    """
    t, _, x_t = diffuse(key, process, x_0)
    return -classifier(x_t, t, label)
