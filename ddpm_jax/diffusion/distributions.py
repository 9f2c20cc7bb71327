"""Distributions over images, element by element independent: what a step of either chain hands to the next."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key


@runtime_checkable
class Distribution(Protocol):
    """What the losses and samplers ask of a step, whatever its family."""

    def noise(self, key: Array) -> Array:
        """The randomness that `push` turns into a sample; a batch of keys gives each example a draw of its own."""
        ...

    def push(self, noise: Array) -> Array:
        """The sample that this noise gives."""
        ...

    def sample(self, key: Array) -> Array:
        """``push(noise(key))``."""
        ...

    def mode(self) -> Array:
        """The most probable value."""
        ...

    def log_prob(self, x: Array) -> Array:
        """Log density or probability of `x`, nats, element by element."""
        ...

    def kl(self, other) -> Array:
        """``D_KL(self || other)``, nats, element by element."""
        ...


class Normal(NamedTuple):
    """A Gaussian with diagonal covariance. `variance` may be of any shape that broadcasts against `mean`, and zero."""

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]

    def noise(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """Standard normal of the mean's shape; a batch of keys gives each example a draw of its own."""
        draw = _standard_normal(self.mean.shape[key.ndim :], self.mean.dtype)
        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def push(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """``mean + sqrt(variance) * noise``, differentiable in both."""
        return self.mean + jnp.sqrt(self.variance) * noise

    def sample(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """A draw of the mean's shape."""
        return self.push(self.noise(key))

    def mode(self) -> Float[Array, "..."]:
        """The mean."""
        return self.mean

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log density, nats, element by element."""
        return -0.5 * (jnp.square(x - self.mean) / self.variance + jnp.log(2 * jnp.pi * self.variance))

    def kl(self, other: "Normal") -> Float[Array, "..."]:
        """``D_KL(self || other)``, nats, element by element."""
        ratio = self.variance / other.variance
        return 0.5 * (ratio - 1 - jnp.log(ratio) + jnp.square(self.mean - other.mean) / other.variance)

    def tilt(self, gradient: Float[Array, "..."]) -> "Normal":
        """The distribution times ``exp(gradient * x)``, normalised: the mean moves by ``variance * gradient``."""
        return self._replace(mean=self.mean + self.variance * gradient)


def fold(keys: Key[Array, " batch"], t: Int[ArrayLike, "..."]) -> Key[Array, " batch"]:
    """Each example's key for what happens at t, a scalar or one per example."""
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(jnp.asarray(t), keys.shape))


def _standard_normal(shape, dtype):
    return lambda key: jax.random.normal(key, shape, dtype)
