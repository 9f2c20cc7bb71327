"""Distributions over images, element by element independent: what a step of either chain hands to the next."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy
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

    def entropy(self) -> Array:
        """Of the distribution, nats, element by element; of a density it is the differential one."""
        ...

    def tilt(self, gradient) -> "Distribution":
        """The distribution times ``exp(gradient * x)``, normalised."""
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

    def entropy(self) -> Float[Array, "..."]:
        """Differential, nats, element by element, of the mean's shape."""
        return jnp.broadcast_to(0.5 * jnp.log(2 * jnp.pi * jnp.e * self.variance), self.mean.shape)

    def tilt(self, gradient: Float[Array, "..."]) -> "Normal":
        """The distribution times ``exp(gradient * x)``, normalised: the mean moves by ``variance * gradient``."""
        return self._replace(mean=self.mean + self.variance * gradient)


class Bernoulli(NamedTuple):
    """Independent bits, 0.0 or 1.0. Both probabilities are kept, so that each is exact where it is small."""

    one: Float[Array, "..."]
    zero: Float[Array, "..."]

    def noise(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """Uniform in [0, 1), of the probabilities' shape; a batch of keys gives each example a draw of its own."""
        draw = _uniform(self.one.shape[key.ndim :], self.one.dtype)
        return jax.vmap(draw)(key) if key.ndim else draw(key)

    def push(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """One where the noise is below its probability."""
        return (noise < self.one).astype(self.one.dtype)

    def sample(self, key: Key[Array, "*batch"]) -> Float[Array, "..."]:
        """A draw of the probabilities' shape."""
        return self.push(self.noise(key))

    def mode(self) -> Float[Array, "..."]:
        """The more probable bit; zero where they are equal."""
        return (self.one > self.zero).astype(self.one.dtype)

    def log_prob(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Log probability of the bits `x`, nats, element by element."""
        return jnp.log(jnp.where(x > 0.5, self.one, self.zero))

    def kl(self, other: "Bernoulli") -> Float[Array, "..."]:
        """``D_KL(self || other)``, nats, element by element."""
        return _weighted_log_ratio(self.one, other.one) + _weighted_log_ratio(self.zero, other.zero)

    def entropy(self) -> Float[Array, "..."]:
        """Nats, element by element."""
        return -(xlogy(self.one, self.one) + xlogy(self.zero, self.zero))

    def tilt(self, gradient: Float[Array, "..."]) -> "Bernoulli":
        """The distribution times ``exp(gradient * x)``, normalised: the log odds of one grow by `gradient`."""
        one, zero = self.one * jax.nn.sigmoid(gradient), self.zero * jax.nn.sigmoid(-gradient)
        return Bernoulli(one / (one + zero), zero / (one + zero))


def _weighted_log_ratio(p: Array, q: Array) -> Array:
    """``p log(p / q)``, exact where the two are almost equal; zero where p is, and so is its gradient."""
    positive = jnp.where(p > 0, p, q)
    return jnp.where(p > 0, p, 0.0) * jnp.log1p((positive - q) / q)


def expectation(dist: Normal | Bernoulli) -> Float[Array, "..."]:
    """The mean, element by element."""
    return dist.one if isinstance(dist, Bernoulli) else dist.mean


def fold(keys: Key[Array, " batch"], t: Int[ArrayLike, "..."]) -> Key[Array, " batch"]:
    """Each example's key for what happens at t, a scalar or one per example."""
    return jax.vmap(jax.random.fold_in)(keys, jnp.broadcast_to(jnp.asarray(t), keys.shape))


def _uniform(shape, dtype):
    return lambda key: jax.random.uniform(key, shape, dtype)


def _standard_normal(shape, dtype):
    return lambda key: jax.random.normal(key, shape, dtype)
