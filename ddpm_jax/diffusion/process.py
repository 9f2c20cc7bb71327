"""A forward process: pure functions bound to a schedule, as optax binds a gradient transformation.

The distributions are of one family (see `distributions.Distribution`), which the process's own module names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.distributions import Distribution
from ddpm_jax.diffusion.schedules import Schedule


class Process(NamedTuple):
    """What the losses and samplers know of q, made by ``gaussian.process`` or ``binomial.process``."""

    schedule: Schedule
    prior: Callable[[tuple[int, ...]], Any]
    """``prior(shape)``: the stationary distribution pi(x_T)."""
    transition: Callable[..., Any]
    """``transition(x_s, s, t)``: q(x_t | x_s), for s < t."""
    posterior: Callable[..., Any]
    """``posterior(x_t, x_0, t, s, eta=1.0)``: q(x_s | x_t, x_0), for s < t; with eta < 1 the less random bridges of
    Song et al. 2021, which share its marginals."""
    log_likelihood: Callable[[Any, Array], Array]
    """``log_likelihood(p(x_0 | x_1), x_0)``: nats, element by element."""
    low: float = -1.0
    """Where the range of the data begins; it ends at 1."""

    def marginal(self, x_0: Float[Array, "..."], t: ArrayLike) -> Distribution:
        """q(x_t | x_0) (Ho et al. 2020, Eq. 4)."""
        return self.transition(x_0, 0, t)
