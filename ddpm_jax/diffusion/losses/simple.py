"""The loss L_simple: the squared error of the network's prediction."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ddpm_jax.diffusion.losses.reductions import Draw, diffuse, per_example, uniform
from ddpm_jax.diffusion.types import Network, Parameterization, Process


def simple(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    draw: Draw = uniform,
) -> Float[Array, " batch"]:
    """L_simple, the squared error of the network's prediction at one uniform t per example (Ho et al. 2020, Eq. 14).

        x_t  = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise,    t ~ U(1..T)
        loss = mean over elements of (target - network(x_t, t))^2

    The target is that of the parameterization, such as the noise for `parameterizations.eps`. Returns the mean over the
    elements of each example. For bits x_t ~ q(x_t | x_0), and the loss is the cross-entropy in nats per bit. `draw` is
    `uniform`, `stratified` or `antithetic`.
    """
    t, noise, x_t = diffuse(key, process, x_0, draw)
    return per_example(jnp.mean, parameterization.error(network(x_t, t, condition), x_0, noise, t))
