"""How a network's output is read: each way states E[x_0 | x_t], from which every kernel follows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.distributions import Normal, expectation
from ddpm_jax.diffusion.gaussian import posterior_variance, q_sample
from ddpm_jax.diffusion.process import Process
from ddpm_jax.diffusion.schedules import Schedule

Variance = Callable[[Schedule, ArrayLike, ArrayLike, int], Array]
"""``(schedule, t, s, ndim)`` -> the variance of p(x_s | x_t), broadcastable to `ndim` axes."""


class Parameterization(NamedTuple):
    """Three readings of one output, at t in 1..T."""

    error: Callable[[Array, Array, Array, ArrayLike], Array]
    """``error(output, x_0, noise, t)``: squared distance to the target, element by element (Ho et al. 2020, Eq. 14)."""
    x_0: Callable[[Array, Array, ArrayLike], Array]
    """``x_0(output, x_t, t)``: the estimate of E[x_0 | x_t] (Ho et al. 2020, Eq. 15)."""
    kernel: Callable[[Array, Array, ArrayLike, ArrayLike], Any]
    """``kernel(output, x_t, t, s)``: p(x_s | x_t), for s < t (Ho et al. 2020, Eq. 11, where s = t - 1)."""
    unclipped: "Parameterization | None" = None
    """What `clipped` was made of; None where nothing is clipped."""


def fixed_small(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    """beta tilde, the variance of the posterior: right for data at a single point (Ho et al. 2020, Section 3.2).

    It is zero at s = 0; as in the released code of 2020, the value of t = 2 stands there. With T = 1 there is none, and
    beta is taken.
    """
    if schedule.num_steps == 1:
        return schedule.between(s, t, ndim)[1]
    t, s = _above_the_data(t, s)
    return posterior_variance(schedule, t, s, ndim)


def fixed_large(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    """beta, the variance of the forward step: right for data of unit variance (Ho et al. 2020, Section 3.2).

    At s = 0, as in the released code of 2020, the `fixed_small` value of t = 2: "a better decoder log likelihood".
    """
    beta = schedule.between(s, t, ndim)[1]
    return jnp.where(at_data(s, ndim), fixed_small(schedule, t, s, ndim), beta)


def at_data(s: ArrayLike, ndim: int) -> Array:
    """Whether s is 0, with trailing axes of size one up to `ndim`."""
    return (jnp.asarray(s) == 0).reshape(jnp.shape(s) + (1,) * (ndim - jnp.ndim(s)))


def _above_the_data(t: ArrayLike, s: ArrayLike) -> tuple[Array, Array]:
    reached = jnp.asarray(s) == 0
    return jnp.where(reached, 2, t), jnp.where(reached, 1, s)


def eps(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The output is the noise (Ho et al. 2020, Eq. 12). x_0 is undefined where alpha_bar_t = 0."""

    def x_0(output, x_t, t):
        alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
        return (x_t - jnp.sqrt(one_minus) * output) / jnp.sqrt(alpha_bar)

    return _gaussian(process, lambda clean, noise, t: noise, x_0, variance)


def x0(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The output is the image itself."""
    return _gaussian(process, lambda clean, noise, t: clean, lambda output, x_t, t: output, variance)


def v(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The output is ``sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0`` (Salimans & Ho 2022, Section 4)."""

    def target(clean, noise, t):
        alpha_bar, one_minus = process.schedule.at(t, clean.ndim)
        return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(one_minus) * clean

    def x_0(output, x_t, t):
        alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
        return jnp.sqrt(alpha_bar) * x_t - jnp.sqrt(one_minus) * output

    return _gaussian(process, target, x_0, variance)


def mean(process: Process, variance: Variance = fixed_small) -> Parameterization:
    """The output is mu tilde, the mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, Eqs. 7-8 and Table 2)."""

    def target(clean, noise, t):
        x_t = q_sample(process.schedule, clean, t, noise)
        return process.posterior(x_t, clean, t, t - 1).mode()

    return _gaussian(process, target, lambda output, x_t, t: _x_0_of_mean(process, output, x_t, t), variance)


def _x_0_of_mean(process: Process, mean: Array, x_t: Array, t: ArrayLike) -> Array:
    # the posterior mean is linear in x_0 and x_t: its two weights are its values at (0, x_t) and at (1, 0)
    from_x_t = process.posterior(x_t, jnp.zeros_like(x_t), t, t - 1).mode()
    per_x_0 = process.posterior(jnp.zeros_like(x_t), jnp.ones_like(x_t), t, t - 1).mode()
    return (mean - from_x_t) / per_x_0


def logits(process: Process) -> Parameterization:
    """For bits: the output is the log odds that a bit of x_0 is one.

    The training error is the cross-entropy with x_0, nats a bit. The kernel is exactly q(x_s | x_t) where the output is
    right: the posterior is linear in x_0.
    """

    def error(output, clean, noise, t):
        return jax.nn.softplus(jnp.where(clean > 0.5, -output, output))

    def x_0(output, x_t, t):
        return jax.nn.sigmoid(output)

    def kernel(output, x_t, t, s):
        return process.posterior(x_t, x_0(output, x_t, t), t, s)

    return Parameterization(error, x_0, kernel)


def shrinking(process: Process, printed: bool = False) -> Parameterization:
    """The output's halves are z_mu and z_Sigma; the kernel draws x_t towards z_mu as the forward step draws to zero.

    Sohl-Dickstein et al. 2015, Eqs. 64-65: the variance is ``sigmoid(z_Sigma + logit(beta_t))``, the mean
    ``(x_t - z_mu) sqrt(1 - variance) + z_mu``. Without the root, as the paper prints it, a network of zeros would not
    keep unit variance; `printed` leaves it out.
    """

    def odds(output, x_t, t, s):
        return _log_odds(process.schedule, t, s, x_t.ndim) + jnp.split(output, 2, axis=-1)[1]

    def mean(output, x_t, t):
        centre, kept = jnp.split(output, 2, axis=-1)[0], jax.nn.sigmoid(-odds(output, x_t, t, t - 1))
        return (x_t - centre) * (kept if printed else jnp.sqrt(kept)) + centre

    return _of_steps(process, mean, lambda *at: jax.nn.sigmoid(odds(*at)))


def shifted(process: Process, num_steps: int) -> Parameterization:
    """As the released code of 2015 has it: ``x_t sqrt(1 - beta_t) + z_mu sqrt(beta_t)``.

    Its variance is ``sigmoid(z_Sigma / sqrt(num_steps) + logit(beta_t))``.
    """

    def mean(output, x_t, t):
        alpha, beta = process.schedule.between(t - 1, t, x_t.ndim)
        return jnp.sqrt(alpha) * x_t + jnp.sqrt(beta) * jnp.split(output, 2, axis=-1)[0]

    def variance(output, x_t, t, s):
        shift = jnp.split(output, 2, axis=-1)[1] / num_steps**0.5
        return jax.nn.sigmoid(_log_odds(process.schedule, t, s, x_t.ndim) + shift)

    return _of_steps(process, mean, variance)


def _log_odds(schedule: Schedule, t: ArrayLike, s: ArrayLike, ndim: int) -> Array:
    alpha, beta = schedule.between(s, t, ndim)
    return jnp.log(beta) - jnp.log(alpha)


def _of_steps(process: Process, mean: Callable, variance: Callable) -> Parameterization:
    """The reading of a network that tells the mean of single steps, at t of s = t - 1.

    Its estimate of x_0 is that whose posterior has this mean; longer steps have the posterior's mean with it.
    """

    def error(output, clean, noise, t):
        x_t = q_sample(process.schedule, clean, t, noise)
        return jnp.square(mean(output, x_t, t) - process.posterior(x_t, clean, t, t - 1).mode())

    def x_0(output, x_t, t):
        return _x_0_of_mean(process, mean(output, x_t, t), x_t, t)

    def kernel(output, x_t, t, s):
        long = process.posterior(x_t, x_0(output, x_t, t), t, s).mode()
        single = at_data(jnp.asarray(t) - 1 - jnp.asarray(s), x_t.ndim)
        return Normal(jnp.where(single, mean(output, x_t, t), long), variance(output, x_t, t, s))

    return Parameterization(error, x_0, kernel)


def fixed_last(process: Process, parameterization: Parameterization) -> Parameterization:
    """The same reading but for the step from x_1 to x_0: p(x_0 | x_1) = q(x_1 | x_0) pi(x_0) / pi(x_1), fixed.

    Sohl-Dickstein et al. 2015, Eq. 44. The forward chain is reversible, so that this is one more of its own steps. What
    the network says at t = 1 is not looked at; longer steps to x_0 are the reading's own.
    """

    def fixed(x_t):
        return process.transition(x_t, 0, 1)

    def last(t, ndim):
        return at_data(jnp.asarray(t) - 1, ndim)

    def kernel(output, x_t, t, s):
        reached = jnp.asarray(t) == 1
        learned = parameterization.kernel(output, x_t, jnp.where(reached, 2, t), jnp.where(reached, 1, s))
        return jax.tree.map(lambda x, y: jnp.where(last(t, x_t.ndim), x, y), fixed(x_t), learned)

    def x_0(output, x_t, t):
        learned = parameterization.x_0(output, x_t, jnp.maximum(t, 2))
        return jnp.where(last(t, x_t.ndim), expectation(fixed(x_t)), learned)

    return parameterization._replace(kernel=kernel, x_0=x_0)


def learned(process: Process, parameterization: Parameterization) -> Parameterization:
    """The output's first half of channels is the parameterization's, the second the log variance of the kernel.

    The "learned diagonal Sigma" of Ho et al. 2020, Table 2. The training error sees the first half alone: a variance is
    learnt from `losses.variational`.
    """

    def first(output):
        return jnp.split(output, 2, axis=-1)[0]

    def error(output, clean, noise, t):
        return parameterization.error(first(output), clean, noise, t)

    def x_0(output, x_t, t):
        return parameterization.x_0(first(output), x_t, t)

    def variance(output, x_t, t, s):
        return jnp.exp(jnp.split(output, 2, axis=-1)[1])

    unclipped = parameterization.unclipped and learned(process, parameterization.unclipped)
    return Parameterization(error, x_0, _kernel(process, x_0, variance), unclipped)


def _gaussian(process: Process, target: Callable, x_0: Callable, variance: Variance) -> Parameterization:
    def error(output, clean, noise, t):
        return jnp.square(output - target(clean, noise, t))

    def fixed(output, x_t, t, s):
        return variance(process.schedule, t, s, x_t.ndim)

    return Parameterization(error, x_0, _kernel(process, x_0, fixed))


def _kernel(process: Process, x_0: Callable, variance: Callable) -> Callable:
    def kernel(output, x_t, t, s):
        posterior = process.posterior(x_t, x_0(output, x_t, t), t, s)
        return posterior._replace(variance=variance(output, x_t, t, s))

    return kernel


def clipped(
    process: Process, parameterization: Parameterization, low: float = -1.0, high: float = 1.0
) -> Parameterization:
    """The same reading with its x_0 held inside the range of the data (the released code of Ho et al. 2020).

    The kernel's mean follows the clipped x_0, its variance stays, and so does the training error.
    """

    def x_0(output, x_t, t):
        return jnp.clip(parameterization.x_0(output, x_t, t), low, high)

    def variance(output, x_t, t, s):
        return parameterization.kernel(output, x_t, t, s).variance

    return Parameterization(parameterization.error, x_0, _kernel(process, x_0, variance), unclipped=parameterization)
