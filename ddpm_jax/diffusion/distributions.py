"""Distributions of independent elements: Gaussian for pixels, Bernoulli for bits. See `types.Distribution`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key


class Normal(NamedTuple):
    """A Gaussian with diagonal covariance. `variance` broadcasts to the shape of `mean`, and may be zero."""

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]

    def noise(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """Standard normal noise of the mean's shape. With one key per example, each example uses its own key."""
        draw = _standard_normal(self.mean.shape[key.ndim :], self.mean.dtype)
        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def push(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """``mean + sqrt(variance) * noise``, differentiable in both."""
        return self.mean + jnp.sqrt(self.variance) * noise

    def sample(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """A sample of the mean's shape."""
        return self.push(self.noise(key))

    def mode(self) -> Float[Array, "..."]:
        """The mean."""
        return self.mean

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log density, in nats, element by element."""
        return -0.5 * (jnp.square(x - self.mean) / self.variance + jnp.log(2 * jnp.pi * self.variance))

    def kl(self, other: "Normal") -> Float[Array, "..."]:
        """``D_KL(self || other)``, in nats, element by element."""
        ratio = self.variance / other.variance
        return 0.5 * (ratio - 1 - jnp.log(ratio) + jnp.square(self.mean - other.mean) / other.variance)

    def entropy(self) -> Float[Array, "..."]:
        """The differential entropy, in nats, element by element, of the mean's shape."""
        return jnp.broadcast_to(0.5 * jnp.log(2 * jnp.pi * jnp.e * self.variance), self.mean.shape)

    def tilt(self, gradient: Float[Array, "..."]) -> "Normal":
        """The normalized product with ``exp(gradient * x)``: the mean moves by ``variance * gradient``."""
        return self._replace(mean=self.mean + self.variance * gradient)


class Bernoulli(NamedTuple):
    """Independent bits, 0.0 or 1.0. The probabilities of 1 and 0 are both stored, so that each is precise near 0."""

    one: Float[Array, "..."]
    zero: Float[Array, "..."]

    def noise(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """Uniform noise in [0, 1), of the shape of `one`. With one key per example, each example uses its own key."""
        draw = _uniform(self.one.shape[key.ndim :], self.one.dtype)
        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def push(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """1 where the noise is below the probability of a one."""
        return (noise < self.one).astype(self.one.dtype)

    def sample(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """A sample of the probabilities' shape."""
        return self.push(self.noise(key))

    def mode(self) -> Float[Array, "..."]:
        """The more probable bit; 0 where both are equally probable."""
        return (self.one > self.zero).astype(self.one.dtype)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log probability of the bits `x`, in nats, element by element."""
        return jnp.log(jnp.where(x > 0.5, self.one, self.zero))

    def kl(self, other: "Bernoulli") -> Float[Array, "..."]:
        """``D_KL(self || other)``, in nats, element by element."""
        return _weighted_log_ratio(self.one, other.one) + _weighted_log_ratio(self.zero, other.zero)

    def entropy(self) -> Float[Array, "..."]:
        """The entropy, in nats, element by element."""
        return -(xlogy(self.one, self.one) + xlogy(self.zero, self.zero))

    def tilt(self, gradient: Float[Array, "..."]) -> "Bernoulli":
        """The normalized product with ``exp(gradient * x)``: `gradient` is added to the log odds of a one.

        A bit that is certain stays so.
        """
        one, zero = self.one * jax.nn.sigmoid(gradient), self.zero * jax.nn.sigmoid(-gradient)
        certain = (self.one == 0) | (self.zero == 0)  # where the sum may underflow to 0
        total = jnp.where(certain, 1.0, one + zero)
        return Bernoulli(jnp.where(certain, self.one, one / total), jnp.where(certain, self.zero, zero / total))


def _weighted_log_ratio(p: Array, q: Array) -> Array:
    """``p log(p / q)``, exact where p and q are almost equal. Zero where p is zero, and so is the gradient."""
    positive = jnp.where(p > 0, p, q)
    return jnp.where(p > 0, p, 0.0) * jnp.log1p((positive - q) / q)


def expectation(dist: Normal | Bernoulli) -> Float[Array, "..."]:
    """The expectation of the distribution, element by element."""
    return dist.one if isinstance(dist, Bernoulli) else dist.mean


def fold(keys: Key[Array, " batch"], number: Int[ArrayLike, "..."]) -> Key[Array, " batch"]:
    """``fold_in(key, number)`` for each example; `number` is a scalar, or one per example."""
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(jnp.asarray(number), keys.shape))


def _uniform(shape, dtype):
    return lambda key: jax.random.uniform(key, shape, dtype)


def _standard_normal(shape, dtype):
    return lambda key: jax.random.normal(key, shape, dtype)
