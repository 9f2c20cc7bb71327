"""The variational bound: as a training loss, and term by term as a measurement."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses.paper_2015 import fixed_decoder, prior_term
from ddpm_jax.diffusion.losses.reductions import diffuse, per_example, uniform
from ddpm_jax.diffusion.parameterizations import at_data
from ddpm_jax.diffusion.types import Network, Parameterization, Process


def variational(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    draw: Callable[..., Array] = uniform,
) -> Float[Array, " batch"]:
    """The term of the variational bound at one uniform t per example, in bits per dimension (Ho et al. 2020, Eq. 5).

        t > 1:  D_KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))        t = 1:  -log p(x_0 | x_1)

    T times its mean over t is the bound without the prior term. Like the released code of Ho et al. 2020, the loss
    omits this factor T, which matters with gradient clipping. The kernel uses the unclipped estimate of x_0, since
    clipping has zero gradient outside the data range. ``draw(key, batch, T)`` gives one t in 1..T for each example.
    """
    t, _, x_t = diffuse(key, process, x_0, draw)
    kernel = parameterization.unclipped().kernel(network(x_t, t, condition), x_t, t, t - 1)
    return step_term(process, kernel, x_0, x_t, t, t - 1) / jnp.log(2.0)


def hybrid(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    weight: float = 0.001,
) -> Float[Array, " batch"]:
    """L_hybrid = L_simple + weight L_vlb, for a learned variance (Nichol & Dhariwal 2021, Eq. 16, weight 0.001).

        loss = mean over elements of (target - output)^2 + weight T (term of the bound at t in bits per dimension)

    Both at the same uniform t per example. The second term has no gradient through the first half of the output's
    channels, so it trains the variance only (their Section 3.1). As in their released code it is T times the term of
    `variational`. For `parameterizations.learned_range` and `learned`; raises ValueError for an output that has not
    twice the channels of x_0.
    """
    process.require_gaussian("L_hybrid")
    t, noise, x_t = diffuse(key, process, x_0)
    output = network(x_t, t, condition)
    if output.shape[-1] != 2 * x_0.shape[-1]:
        raise ValueError(f"L_hybrid needs {2 * x_0.shape[-1]} output channels, the network has {output.shape[-1]}")
    first, second = jnp.split(output, 2, axis=-1)
    held = jnp.concatenate([jax.lax.stop_gradient(first), second], axis=-1)
    term = step_term(process, parameterization.unclipped().kernel(held, x_t, t, t - 1), x_0, x_t, t, t - 1)
    simple = per_example(jnp.mean, parameterization.error(output, x_0, noise, t))
    return simple + weight * process.schedule.num_steps * (term / jnp.log(2.0))


def step_term(process: Process, kernel: Any, x_0: Array, x_t: Array, t: Array, s: Array) -> Float[Array, " batch"]:
    """The term of the bound of the step from t to s < t, with this kernel p(x_s | x_t), in nats per element."""
    term = -process.log_likelihood(kernel, x_0)
    if process.schedule.num_steps > 1:
        first = at_data(s, x_0.ndim)
        posterior = process.posterior(x_t, x_0, jnp.maximum(t, 2), jnp.maximum(s, 1))
        # at s = 0 the KL divergence is not used, but an infinite one would make the gradient of `where` NaN
        kernel = jax.tree.map(lambda q, p: jnp.where(first, q, p), posterior, kernel)
        term = jnp.where(first, term, posterior.kl(kernel))
    return per_example(jnp.mean, term)


class Bound(NamedTuple):
    """The terms of the variational bound, in nats per example (Ho et al. 2020, Eq. 5), and the squared error of x_0.

    `chain` and `distortion` are in the order of the times: from T down by default. The chain terms include their
    weights: their sum is the sum over all t in 2..T, or an unbiased estimate of it from random times.
    """

    prior: Float[Array, " batch"]
    """L_T = D_KL(q(x_T | x_0) || pi), T being the first time."""
    chain: Float[Array, "batch times"]
    """L_{t-1} = D_KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))."""
    decoder: Float[Array, " batch"]
    """L_0 = -log p(x_0 | x_1), or p(x_0 | x_t) for the last t above 0."""
    distortion: Float[Array, "batch times+1"]
    """Mean squared error per element of the estimate of x_0, at each t of `chain` and then at t = 1."""
    fixed: Float[Array, " batch"]
    """The decoder term of the fixed last step of Sohl-Dickstein et al. 2015, see `fixed_decoder`."""
    null: Float[Array, " batch"]
    """-log pi(x_0), the negative log-likelihood under the prior: minus the L_null of Sohl-Dickstein et al. 2015."""

    def total(self) -> Float[Array, " batch"]:
        """The upper bound on -log p(x_0), in nats per example."""
        return self.prior + self.chain.sum(axis=1) + self.decoder

    def K(self) -> Float[Array, " batch"]:
        """The lower bound K on log p(x_0) of Sohl-Dickstein et al. 2015, Eqs. 12 and 14, in nats per example."""
        return -(self.prior + self.chain.sum(axis=1) + self.fixed)


def bound(
    keys: Key[Array, " batch"],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
    times: Int[Array, "count *batch"] | None = None,
    weights: Float[Array, "count *batch"] | None = None,
    visits: Num[ArrayLike, " visits"] | None = None,
) -> Bound:
    """The terms of the variational bound on -log p(x_0), each from one sample of x_t (Ho et al. 2020, Eq. 5).

        -log p(x_0) <= D_KL(q(x_T | x_0) || pi) + sum_{t=2..T} D_KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
                       - log p(x_0 | x_1)

    The terms are in nats per example. `times` are the t of the chain terms, in 2..T, [count] or [count, batch]; by
    default all, from T down. `weights` multiply the chain terms; the default, (T - 1) / count, is unbiased for times
    drawn uniformly from 2..T. The noise of an example depends on its own key and t. The network is evaluated once per
    time, in one `lax.scan`, and once at t = 1.

    `visits`, the times that a sampler visits, are those of the model with fewer steps, instead of `times` and
    `weights`: its kernels go from each of them to the next, the prior is at the first, and the decoder is
    p(x_0 | x_t) at the last t above 0. The noise at real t is that of the nearest integer. `fixed` is then still that
    of t = 1, so K has no meaning.
    """
    first, times, below, last, weights = _steps(process.schedule.num_steps, times, weights, visits)

    def evaluate(t, s):
        x_t = process.marginal(x_0, t).sample(fold(keys, jnp.rint(t).astype(jnp.int32)))
        output = network(x_t, t, condition)
        distortion = per_example(jnp.mean, jnp.square(parameterization.x_0(output, x_t, t) - x_0))
        return x_t, parameterization.kernel(output, x_t, t, s), distortion

    def term(_, at):
        t, s, weight = at
        x_t, kernel, distortion = evaluate(t, s)
        kl = process.posterior(x_t, x_0, t, s).kl(kernel)
        return None, (weight * per_example(jnp.sum, kl), distortion)

    _, (chain, distortion) = jax.lax.scan(term, None, (times, below, weights))
    _, kernel, least = evaluate(last, jnp.zeros_like(last))
    return Bound(
        prior=per_example(jnp.sum, prior_term(process, x_0, first)),
        chain=chain.T,
        decoder=-per_example(jnp.sum, process.log_likelihood(kernel, x_0)),
        distortion=jnp.concatenate([distortion, least[None]]).T,
        fixed=per_example(jnp.sum, fixed_decoder(process, x_0)),
        null=-per_example(jnp.sum, process.prior(x_0.shape).log_prob(x_0)),
    )


def _steps(
    num_steps: int, times: Array | None, weights: Array | None, visits: ArrayLike | None
) -> tuple[ArrayLike, Array, Array, Array, Array]:
    """(first t, t of the chain terms, their s, last t above 0, weights) of the arguments of `bound`."""
    if visits is not None:
        visits = jnp.asarray(visits)
        return visits[0], visits[:-2], visits[1:-1], visits[-2], jnp.ones(len(visits) - 2)
    times = jnp.arange(num_steps, 1, -1) if times is None else times
    weights = jnp.full(times.shape, (num_steps - 1) / max(1, len(times))) if weights is None else weights
    return num_steps, times, times - 1, jnp.ones((), times.dtype), weights
