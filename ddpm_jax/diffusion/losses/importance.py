"""Losses at timesteps that are drawn by importance: often where the recent losses were large."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.losses.bound import variational
from ddpm_jax.diffusion.types import Network, Parameterization, Process


class History(NamedTuple):
    """The last losses at each t, from which `Importance` draws the next t."""

    losses: Float[Array, "T last"]
    """Row t - 1 has the last losses at t, in the order in which a ring is filled."""
    count: Int[Array, " T"]
    """The number of losses so far, from 0; from `last` on, modulo `last` plus `last`."""


class Seen(NamedTuple):
    """What `Importance.update` adds to the history: for each example its t and its loss before the weight."""

    t: Int[Array, " batch"]
    loss: Float[Array, " batch"]


class Importance(NamedTuple):
    """The sum of a loss over all t, from t drawn by importance (Nichol & Dhariwal 2021, Section 3.3, Eq. 18).

        loss = L_t / p_t,    t ~ p
        p_t  = (1 - uniform_share) r_t / (sum over t of r_t) + uniform_share / T
        r_t  = sqrt(mean of the last losses L_t^2 at t)

    p is uniform until there are `last` losses at every t. The expectation over t is the sum of L_t for every p; its
    variance is least where p_t is proportional to r_t. For the loss `variational` the sum is L_vlb, the bound in bits
    per dimension without the prior term. `loss` is a loss with the argument `draw`. Called without a history, as the
    other losses are, it draws t uniformly.
    """

    loss: Callable[..., Array] = variational
    last: int = 10
    """Number of losses that are kept for each t."""
    uniform_share: float = 0.001
    """The share of t that are drawn uniformly."""

    def __call__(
        self,
        key: Key[Array, ""],
        process: Process,
        parameterization: Parameterization,
        network: Network,
        x_0: Float[Array, "batch *shape"],
        condition: Array | None = None,
    ) -> Float[Array, " batch"]:
        """The loss of each example, at a uniform t."""
        history = self.start(process.schedule.num_steps)
        return self.recorded(history, key, process, parameterization, network, x_0, condition)[0]

    def recorded(
        self,
        history: History,
        key: Key[Array, ""],
        process: Process,
        parameterization: Parameterization,
        network: Network,
        x_0: Float[Array, "batch *shape"],
        condition: Array | None = None,
    ) -> tuple[Float[Array, " batch"], Seen]:
        """(the loss of each example, what to add to the history), at t drawn from `probabilities(history)`."""
        key_t, key_loss = jax.random.split(key)
        p = self.probabilities(history)
        # the least p_t is uniform_share / T, which 23 random bits would not resolve
        t = 1 + jax.random.categorical(key_t, jnp.log(p), shape=x_0.shape[:1], mode="high")
        losses = self.loss(key_loss, process, parameterization, network, x_0, condition, draw=lambda *_: t)
        return losses / p[t - 1], Seen(t, losses)

    def start(self, num_steps: int) -> History:
        """The history before the first step, for t in 1..T = `num_steps`."""
        return History(jnp.zeros((num_steps, self.last)), jnp.zeros((num_steps,), jnp.int32))

    def probabilities(self, history: History) -> Float[Array, " T"]:
        """p_1 .. p_T, whose sum is 1."""
        size = jnp.sqrt(jnp.mean(jnp.square(history.losses), axis=1))
        known = jnp.all(history.count >= self.last) & (size.sum() > 0)
        share = jnp.where(known, size / jnp.where(known, size.sum(), 1.0), 1 / len(size))
        return (1 - self.uniform_share) * share + self.uniform_share / len(size)

    def update(self, history: History, seen: Seen) -> History:
        """The history after these losses, in the order of the batch; of each t the last ones are kept."""
        same = seen.t[:, None] == seen.t[None]
        earlier = jnp.tril(same, -1).sum(axis=1)
        slot = (history.count[seen.t - 1] + earlier) % self.last
        kept = same.sum(axis=1) - earlier <= self.last
        row = jnp.where(kept, seen.t - 1, len(history.count))  # a row that does not exist: not written
        count = history.count.at[seen.t - 1].add(1)
        wrapped = jnp.where(count < self.last, count, self.last + count % self.last)  # never overflows
        return History(history.losses.at[row, slot].set(seen.loss, mode="drop"), wrapped)
