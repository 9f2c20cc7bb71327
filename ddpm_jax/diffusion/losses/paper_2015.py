"""Losses and measures of Sohl-Dickstein et al. 2015: the bound K, entropy bounds, importance-sampled log-likelihood."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.losses.reductions import per_example
from ddpm_jax.diffusion.types import Kernel, Network, Parameterization, Process


def negative_K(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    draw: Callable[[Array, int, int], Array] | None = None,
) -> Float[Array, " batch"]:
    """An estimate of -K, the upper bound on -log p(x_0), from one chain term per example (2015, Eq. 14).

        -K = D_KL(q(x_T | x_0) || pi) + (T - 1) D_KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) + fixed decoder

    In bits per dimension. By default t is stratified: example i of n has a t from the i-th of n equal parts of 2..T, so
    the mean is unbiased if the order of the batch is random. Another `draw` is `uniform`, or `shared`, one t for the
    whole batch as in the released code: ``draw(key, batch, T - 1)`` returns t - 1. With T = 1 there is no chain term.
    Every term that depends on the schedule is included, so the betas can be trained; the gradient is taken at fixed
    noise (Section 2.4.1).
    """
    terms = prior_term(process, x_0) + fixed_decoder(process, x_0)
    if process.schedule.num_steps > 1:
        terms += _chain_term(key, process, parameterization, network, x_0, condition, draw or in_order)
    return per_example(jnp.mean, terms) / jnp.log(2.0)


def in_order(key: Key[Array, ""], batch: int, num_steps: int) -> Int[Array, " batch"]:
    """For example i of n one t from the i-th of n equal parts of 1..T, with one shared offset."""
    share = (jnp.arange(batch) + jax.random.uniform(key)) / batch
    return jnp.minimum(1 + (share * num_steps).astype(jnp.int32), num_steps)


def shared(key: Key[Array, ""], batch: int, num_steps: int) -> Int[Array, " batch"]:
    """One uniform t in 1..T for all examples (2015, released code)."""
    return jnp.broadcast_to(jax.random.randint(key, (), 1, num_steps + 1), (batch,))


def _chain_term(
    key: Array,
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Array,
    condition: Any,
    draw: Callable[[Array, int, int], Array],
) -> Array:
    """(T - 1) times the KL divergence at one t per example, in nats, element by element."""
    steps = process.schedule.num_steps
    key_t, key_noise = jax.random.split(key)
    t = 1 + draw(key_t, len(x_0), steps - 1)
    x_t = process.marginal(x_0, t).sample(key_noise)
    kernel = parameterization.kernel(network(x_t, t, condition), x_t, t, t - 1)
    return (steps - 1) * process.posterior(x_t, x_0, t, t - 1).kl(kernel)


def prior_term(
    process: Process, x_0: Float[Array, "batch *shape"], t: ArrayLike | None = None
) -> Float[Array, "batch *shape"]:
    """D_KL(q(x_t | x_0) || pi), in nats, element by element; by default L_T, at t = T."""
    return process.marginal(x_0, process.schedule.num_steps if t is None else t).kl(process.prior(x_0.shape))


def fixed_decoder(process: Process, x_0: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """The mean of -log p(x_0 | x_1) over q(x_1 | x_0), for the fixed last step of 2015, in nats, element by element.

        p(x_0 | x_1) = q(x_1 | x_0) pi(x_0) / pi(x_1)        (2015, Eq. 44)
        fixed decoder = -log pi(x_0) - D_KL(q(x_1 | x_0) || pi)

    Exact, and without a network.
    """
    prior = process.prior(x_0.shape)
    return -prior.log_prob(x_0) - process.marginal(x_0, 1).kl(prior)


def entropy_bounds(
    key: Key[Array, ""], process: Process, x_0: Float[Array, "batch *shape"], t: int
) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
    """(lower, upper): bounds on the entropy H_q(X^{t-1} | X^t), t in 2..T, in nats, element by element (2015, Eq. 24).

        H_q(X^t | X^{t-1}) + H_q(X^{t-1} | X^0) - H_q(X^t | X^0) <= H_q(X^{t-1} | X^t) <= H_q(X^t | X^{t-1})

    For a Gaussian process the bounds are log(2 pi e beta tilde_t) / 2 and log(2 pi e beta_t) / 2, exactly. For bits
    they are unbiased estimates, from one sample of x^{t-1}. The upper bound holds for data whose entropy no forward
    step lowers, such as Gaussian data of variance one or less, or any bits if the base rate is 0.5.
    """
    before, after = process.marginal(x_0, t - 1), process.marginal(x_0, t)
    step = process.transition(before.sample(key), t - 1, t).entropy()
    return step + before.entropy() - after.entropy(), step


def log_likelihood(
    key: Key[Array, ""],
    process: Process,
    kernel: Kernel,
    x_0: Float[Array, "batch *shape"],
    num: int,
) -> Float[Array, " batch"]:
    """An estimate of log p(x_0), in nats per example, by importance sampling with `num` forward chains (2015, Eq. 9).

        log p(x_0) ~ log mean over chains of  pi(x_T) prod_t p(x_{t-1} | x_t) / q(x_t | x_{t-1})

    The expectation of the estimate is a lower bound on log p(x_0), which rises to log p(x_0) as `num` grows; for
    num = 1 it is the variational bound. `kernel` must include the last step p(x_0 | x_1): for that of 2015 see
    `parameterizations.fixed_last`.
    """
    steps = process.schedule.num_steps

    def chain(key):
        def advance(x, t):
            dist = process.transition(x, t - 1, t)
            y = dist.sample(jax.random.fold_in(key, t))
            return y, kernel(y, t, t - 1), per_example(jnp.sum, dist.log_prob(y))

        def forward(carry, t):
            x, ratio = carry
            y, back, forth = advance(x, t)
            return (y, ratio + per_example(jnp.sum, back.log_prob(x)) - forth), None

        # the last reverse step uses the process's log-likelihood, which for pixels is a probability, not a density
        x_1, back, forth = advance(x_0, 1)
        ratio = per_example(jnp.sum, process.log_likelihood(back, x_0)) - forth
        (x_T, ratio), _ = jax.lax.scan(forward, (x_1, ratio), jnp.arange(2, steps + 1))
        return ratio + per_example(jnp.sum, process.prior(x_0.shape).log_prob(x_T))

    ratios = jax.lax.map(chain, jax.random.split(key, num))
    return jax.nn.logsumexp(ratios, axis=0) - jnp.log(float(num))
