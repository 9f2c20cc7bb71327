"""What is minimised and what is measured: the simple loss and the variational bound, for any process."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.parameterizations import Parameterization, at_data
from ddpm_jax.diffusion.process import Process

Network = Callable[[Array, ArrayLike, Array | None], Array]
"""``(x_t, t, condition)`` -> output, t in 1..T, scalar or one per example."""


def simple(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
) -> Float[Array, " batch"]:
    """L_simple: the parameterization's squared error at one uniform t, averaged over the elements of each example.

    Ho et al. 2020, Eq. 14. No unit: the mean over elements, not nats.
    """
    t, noise, x_t = _diffuse(key, process, x_0)
    return _per_example(jnp.mean, parameterization.error(network(x_t, t, condition), x_0, noise, t))


def variational(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
) -> Float[Array, " batch"]:
    """L: one term of the variational bound, at one uniform t, bits per dimension (Ho et al. 2020, Eq. 5 and Table 2).

    T times its mean is the bound but for its prior. As in the released code of 2020 it is not multiplied by T, which
    matters where gradients are clipped, and x_0 is not: where it lies outside the data there would be no gradient.
    """
    parameterization = parameterization.unclipped or parameterization
    t, _, x_t = _diffuse(key, process, x_0)
    kernel = parameterization.kernel(network(x_t, t, condition), x_t, t, t - 1)
    # at t = 1 the posterior is a point, its divergence infinite: a gradient would see that even in a branch not taken
    above = jnp.maximum(t, 2)
    kl = process.posterior(x_t, x_0, above, above - 1).kl(kernel)
    term = jnp.where(at_data(t - 1, x_0.ndim), -process.log_likelihood(kernel, x_0), kl)
    return _per_example(jnp.mean, term) / jnp.log(2.0)


def evidence(
    key: Key[Array, ""],
    process: Process,
    parameterization: Parameterization,
    network: Network,
    x_0: Float[Array, "batch *shape"],
    condition: Array | None = None,
) -> Float[Array, " batch"]:
    """Minus the bound K of Sohl-Dickstein et al. 2015, Eq. 14, by one chain term, bits per dimension.

    t is spread evenly over 2..T within the batch. Everything that depends on the schedule is in it, so that its betas
    can be trained: the noise is held while the loss is differentiated (Section 2.4.1).
    """
    steps, count = process.schedule.num_steps, x_0.shape[0]
    key_t, key_noise = jax.random.split(key)
    share = (jnp.arange(count) + jax.random.uniform(key_t)) / count
    t = jnp.minimum(2 + (share * (steps - 1)).astype(jnp.int32), steps)
    x_t = process.marginal(x_0, t).sample(key_noise)
    kernel = parameterization.kernel(network(x_t, t, condition), x_t, t, t - 1)
    chain = (steps - 1) * process.posterior(x_t, x_0, t, t - 1).kl(kernel)
    return _per_example(jnp.mean, chain + _prior_term(process, x_0) + fixed_decoder(process, x_0)) / jnp.log(2.0)


def _prior_term(process: Process, x_0: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """L_T, nats, element by element."""
    return process.marginal(x_0, process.schedule.num_steps).kl(process.prior(x_0.shape))


def fixed_decoder(process: Process, x_0: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """L_0 of the last step that 2015 fixes, p(x_0 | x_1) = q(x_1 | x_0) pi(x_0) / pi(x_1): nats, element by element.

    Exact, and without a network: -log pi(x_0) - D_KL(q(x_1 | x_0) || pi) (2015: Eq. 44, whose entropies this becomes).
    """
    prior = process.prior(x_0.shape)
    return -prior.log_prob(x_0) - process.marginal(x_0, 1).kl(prior)


def entropies(process: Process, x_0: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """H_q(X^T | X^0) - H_q(X^1 | X^0) - H_p(X^T), the last three terms of 2015's Eq. 14: nats, element by element.

    They stand for -prior - `fixed_decoder` only where -E log pi(x^t) is H_p(X^T) at all t: for Gaussian data of second
    moment one, for bits whose mean activity is the base rate (2015: Appendix B).
    """
    last, first = process.marginal(x_0, process.schedule.num_steps), process.marginal(x_0, 1)
    return last.entropy() - first.entropy() - process.prior(x_0.shape).entropy()


def entropy_bounds(
    key: Key[Array, ""], process: Process, x_0: Float[Array, "batch *shape"], t: int
) -> tuple[Float[Array, "batch *shape"], Float[Array, "batch *shape"]]:
    """The lower and the upper bound on H_q(X^{t-1} | X^t), for t in 2..T (2015: Eq. 24): nats, element by element.

    For a Gaussian they are exact, half the logs of 2 pi e times beta tilde and beta; for bits their means are unbiased,
    by a draw of x^{t-1} from `key`. The upper one holds for data that keep their entropy, as in `entropies`.
    """
    before, after = process.marginal(x_0, t - 1), process.marginal(x_0, t)
    step = process.transition(before.sample(key), t - 1, t).entropy()
    return step + before.entropy() - after.entropy(), step


def log_likelihood(
    key: Key[Array, ""],
    process: Process,
    kernel: Callable[[Array, ArrayLike, ArrayLike], Any],
    x_0: Float[Array, "batch *shape"],
    num: int,
) -> Float[Array, " batch"]:
    """log p(x_0), nats per example, by importance sampling over `num` forward chains (2015: Eq. 9).

    Its mean is below log p(x_0) and rises to it with `num`; with one chain it is the bound, by other draws. `kernel` is
    p(x_s | x_t), the last step included: see `parameterizations.fixed_last`.
    """
    steps = process.schedule.num_steps

    def chain(key):
        def forward(carry, t):
            x, ratio = carry
            dist = process.transition(x, t - 1, t)
            y = dist.sample(jax.random.fold_in(key, t))
            ratio += _per_example(jnp.sum, kernel(y, t, t - 1).log_prob(x) - dist.log_prob(y))
            return (y, ratio), None

        (x_T, ratio), _ = jax.lax.scan(forward, (x_0, jnp.zeros(x_0.shape[:1])), jnp.arange(1, steps + 1))
        return ratio + _per_example(jnp.sum, process.prior(x_0.shape).log_prob(x_T))

    ratios = jax.lax.map(chain, jax.random.split(key, num))
    return jax.nn.logsumexp(ratios, axis=0) - jnp.log(float(num))


def _diffuse(key: Array, process: Process, x_0: Float[Array, "batch *shape"]) -> tuple[Array, Array, Array]:
    """(t, noise, x_t): for each example one t, uniform over 1..T, and its x_t."""
    key_t, key_noise = jax.random.split(key)
    t = jax.random.randint(key_t, x_0.shape[:1], 1, process.schedule.num_steps + 1)
    marginal = process.marginal(x_0, t)
    noise = marginal.noise(key_noise)
    return t, noise, marginal.push(noise)


class Bound(NamedTuple):
    """The terms of the variational bound, nats per example (Ho et al. 2020, Eq. 5), and what the model sees on the way.

    `chain` is in the order of the times, from T down where they are all. Its terms are weighted so that their sum
    estimates the sum over all t in 2..T without bias; with all of them each weight is one.
    """

    prior: Float[Array, " batch"]
    """L_T = D_KL(q(x_T | x_0) || pi)."""
    chain: Float[Array, "batch times"]
    """L_{t-1} = D_KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))."""
    decoder: Float[Array, " batch"]
    """L_0 = -log p(x_0 | x_1)."""
    distortion: Float[Array, "batch times+1"]
    """Mean squared error of the estimate of x_0 at each of those t and then at t = 1, in units of x_0 squared."""
    fixed: Float[Array, " batch"]
    """`decoder` of the last step that 2015 fixes, see `fixed_decoder`."""
    null: Float[Array, " batch"]
    """-log pi(x_0), what a model that knows nothing but the prior needs (minus the L_null of 2015)."""

    def total(self) -> Float[Array, " batch"]:
        """The bound on -log p(x_0), nats per example."""
        return self.prior + self.chain.sum(axis=1) + self.decoder

    def K(self) -> Float[Array, " batch"]:
        """The lower bound on log p(x_0) of Sohl-Dickstein et al. 2015, Eqs. 12 and 14, nats per example."""
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
) -> Bound:
    """The bound on -log p(x_0), each term with one draw of x_t: one network call a term, in one `lax.scan`.

    `times` are the t of the chain terms, in 2..T, [count] or [count, batch]; the default is all of them, from T down.
    `weights` are what their terms are multiplied with, by default what estimates the whole from uniform times. Each
    example's noise comes from its own key.
    """
    steps = process.schedule.num_steps
    times = jnp.arange(steps, 1, -1) if times is None else times
    weights = jnp.full(times.shape, (steps - 1) / max(1, len(times))) if weights is None else weights

    def look(t):
        x_t = process.marginal(x_0, t).sample(fold(keys, t))
        output = network(x_t, t, condition)
        distortion = _per_example(jnp.mean, jnp.square(parameterization.x_0(output, x_t, t) - x_0))
        return x_t, parameterization.kernel(output, x_t, t, t - 1), distortion

    def term(_, at):
        t, weight = at
        x_t, kernel, distortion = look(t)
        kl = process.posterior(x_t, x_0, t, t - 1).kl(kernel)
        return None, (weight * _per_example(jnp.sum, kl), distortion)

    _, (chain, distortion) = jax.lax.scan(term, None, (times, weights))
    _, kernel, last = look(jnp.ones((), times.dtype))
    return Bound(
        prior=_per_example(jnp.sum, _prior_term(process, x_0)),
        chain=chain.T,
        decoder=-_per_example(jnp.sum, process.log_likelihood(kernel, x_0)),
        distortion=jnp.concatenate([distortion, last[None]]).T,
        fixed=_per_example(jnp.sum, fixed_decoder(process, x_0)),
        null=-_per_example(jnp.sum, process.prior(x_0.shape).log_prob(x_0)),
    )


def _per_example(reduce: Callable, x: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
    return reduce(x, axis=tuple(range(1, x.ndim)))
