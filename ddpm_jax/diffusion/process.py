"""A forward process: pure functions bound to a schedule, as optax binds a gradient transformation."""

from collections.abc import Callable
from typing import NamedTuple

from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from ddpm_jax.diffusion.distributions import Distribution
from ddpm_jax.diffusion.schedules import Schedule


class Process(NamedTuple):
    """What the losses and samplers know of q, Gaussian or binomial. Made by ``gaussian.process``."""

    schedule: Schedule
    prior: Callable[[tuple[int, ...]], Distribution]
    """``prior(shape)``: the stationary distribution pi(x_T)."""
    transition: Callable[..., Distribution]
    """``transition(x_s, s, t)``: q(x_t | x_s), for s < t."""
    posterior: Callable[..., Distribution]
    """``posterior(x_t, x_0, t, s, eta=1.0)``: q(x_s | x_t, x_0), for s < t; with eta < 1 the less random bridges of
    Song et al. 2021, which share its marginals."""
    log_likelihood: Callable[[Distribution, Array], Array]
    """``log_likelihood(p(x_0 | x_1), x_0)``: nats, element by element."""

    def marginal(self, x_0: Float[Array, "..."], t: ArrayLike) -> Distribution:
        """q(x_t | x_0) (Ho et al. 2020, Eq. 4)."""
        return self.transition(x_0, 0, t)
