"""The terms of the bound at every t, from which the bound of every model with fewer steps follows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses.bound import step_term
from ddpm_jax.diffusion.losses.paper_2015 import prior_term
from ddpm_jax.diffusion.losses.reductions import per_example
from ddpm_jax.diffusion.parameterizations import analytic, fixed_large, with_variance
from ddpm_jax.diffusion.types import Network, Parameterization, Process


class Terms(NamedTuple):
    """What the bound consists of, per element of each example. Column n is t = n + 1, from 1 to T."""

    prior: Float[Array, " batch"]
    """D_KL(q(x_T | x_0) || pi), nats."""
    errors: Float[Array, "batch T"]
    """Mean of (x_0 - estimate of x_0)^2."""
    decoder: Float[Array, "batch T"]
    """-log p(x_0 | x_t) with the variances `fixed_small` and `fixed_large`, which are the same there, nats."""
    analytic_decoder: Float[Array, "batch T"]
    """-log p(x_0 | x_t) with the variance `analytic`, nats."""
    own: Float[Array, "batch T targets"]
    """The terms of the steps from t to its targets with the variance of the parameterization, nats."""


def terms(
    keys: Key[Array, " batch"],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    errors: Float[ArrayLike, " times"] | None = None,
    targets: Int[ArrayLike, "T targets"] | None = None,
) -> Terms:
    """The terms of the bound at every t, each from one sample of x_t: the one that `bound` draws for these keys.

    T calls of the network, in one `lax.scan`. The KL divergence of the step from t to s is a linear function of the
    error at t, so these terms give the bound of every choice of times (Watson et al. 2021): see `samplers.step_costs`.
    `errors` are those of the variance `analytic`; by default at each t the mean of the batch itself. A variance that
    the network outputs differs between elements, so its terms are no such functions: they are computed for the steps
    from t to each s of ``targets[t - 1]``, by default none. Raises ValueError unless the process is Gaussian.
    """
    large = with_variance(parameterization, fixed_large)
    at_0, T = jnp.zeros((), jnp.int32), process.schedule.num_steps

    def at(_, step):
        t, below = step
        x_t = process.marginal(x_0, t).sample(fold(keys, t))
        output = network(x_t, t, condition)
        error = per_example(jnp.mean, jnp.square(parameterization.x_0(output, x_t, t) - x_0))
        table = jnp.full(T + 1, error.mean()) if errors is None else errors
        variances = large, with_variance(parameterization, analytic(table))
        kernels = (each.kernel(output, x_t, t, at_0) for each in variances)
        decoders = (-per_example(jnp.mean, process.log_likelihood(kernel, x_0)) for kernel in kernels)
        own = jax.vmap(lambda s: step_term(process, parameterization.kernel(output, x_t, t, s), x_0, x_t, t, s))(below)
        return None, (error, *decoders, own)

    below = jnp.zeros((T, 0), jnp.int32) if targets is None else jnp.asarray(targets)
    _, (*columns, own) = jax.lax.scan(at, None, (jnp.arange(1, T + 1), below))
    error, decoder, analytic_decoder = (column.T for column in columns)
    prior = per_example(jnp.mean, prior_term(process, x_0))
    return Terms(prior, error, decoder, analytic_decoder, jnp.moveaxis(own, -1, 0))
