"""Twisted sequential Monte Carlo: samples given a measurement that are exact in the limit of many particles."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.guidance.measurements import LinearMeasurement, estimator, solve
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler


class Particles(NamedTuple):
    """The memory of `twisted`."""

    log_weights: Float[Array, "batch particles"]
    """The logarithms of the particles' weights, without the twist at x_t; 0 after the last step."""
    effective: Float[Array, " batch"]
    """The smallest effective sample size (sum of weights)^2 / sum of squares until now, from 1 to the number of
    particles. Where it is close to 1 the samples are those of few particles: use more particles or steps."""


def twisted(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    measurement: LinearMeasurement,
    y: Float[Array, "batch *measured"],
    condition: Array | None = None,
    iterations: int = 20,
) -> Sampler:
    """The twisted diffusion sampler (Wu et al. 2023, Algorithm 1), for x_T of shape [batch, particles, ...].

        twist_t(x_t) = exp(-r^T (sigma^2 + (1 - alpha_bar_t) A A^T)^-1 r / 2),    r = y - A x_0(x_t)
        x_s ~ p(x_s | x_t) tilted by the gradient of log twist_t at x_t
        weight = p(x_s | x_t) twist_s(x_s) / (tilted(x_s | x_t) twist_t(x_t)),    twist_0(x_0) = p(y | x_0)

    p(x_s | x_t) is the kernel of the parameterization; the last step takes its mode. x_0(x_t) is clipped where the
    parameterization clips, which bounds the twist where x_t is almost noise. As the number of particles grows the
    samples converge to those of p(x_0) p(y | x_0), normalized, where p(x_0) is the distribution of ancestral sampling
    at the same times. Where the effective sample size is below half of the particles of an image, these are
    resampled systematically, and after the last step in any case: then each particle alone is a draw from the weighted
    particles. The keys are those of the images, [batch]. A step costs one call of the network for each particle, with
    its gradient. Raises ValueError unless the process is Gaussian.
    """
    process.require_gaussian("twisted SMC")
    filtering = _Filter(process, parameterization, network, measurement, y, condition, iterations)
    return Sampler(_fresh, filtering.step, parameterization.single_steps)


class _Filter(NamedTuple):
    """The arguments of `twisted`."""

    process: Process
    parameterization: Parameterization
    network: Network
    measurement: LinearMeasurement
    y: Array
    condition: Array | None
    iterations: int

    def step(self, keys: Array, x_t: Array, memory: Particles, t: Array, s: Array) -> tuple[Array, Particles]:
        """Weights the particles by their twist, resamples them, and moves them to s."""
        over_particles = jax.vmap(self.evaluate, (0, None, None, None))
        found = jax.vmap(over_particles, (0, None, 0, 0))(x_t, t, self.condition, self.y)
        log_weights = memory.log_weights + found[1]
        effective = _effective(log_weights)
        few = effective < x_t.shape[1] / 2
        chosen = _resampled(fold(keys, 0), log_weights, few)
        x_t, output, log_twist, gradient = (_pick(each, chosen) for each in (x_t, *found))
        x_s, log_ratio = self.propose(fold(keys, 1), x_t, t, s, output, gradient)
        log_weights = jnp.where(few[:, None], 0.0, log_weights) - log_twist + log_ratio
        return self.finish(fold(keys, 2), x_s, Particles(log_weights, jnp.minimum(memory.effective, effective)), s)

    def evaluate(self, x_t: Array, t: Array, label: Array | None, y: Array) -> tuple[Array, Array, Array]:
        """For one particle: the output of the network, log twist_t, and the gradient of log twist_t by x_t."""
        estimate = estimator(self.parameterization, self.network)
        x_0, pull, output = jax.vjp(lambda x: estimate(x, t, label), x_t, has_aux=True)
        residual, variance = y - self.measurement.forward(x_0), self.process.schedule.at(t, 0)[1]
        solution = solve(self.measurement, lambda v: variance * v, residual, self.iterations)
        return output, -0.5 * (residual * solution).sum(), pull(self.measurement.transpose(solution))[0]

    def propose(
        self, keys: Array, x_t: Array, t: Array, s: Array, output: Array, gradient: Array
    ) -> tuple[Array, Array]:
        """x_s, and log p(x_s | x_t) - log tilted(x_s | x_t); in the last step both are the mode."""
        kernel = jax.vmap(lambda output, x: self.parameterization.kernel(output, x, t, s))(output, x_t)
        tilted, last = kernel.tilt(gradient), s == 0
        x_s = jnp.where(last, kernel.mode(), tilted.sample(keys))
        log_ratio = (kernel.log_prob(x_s) - tilted.log_prob(x_s)).reshape(*x_s.shape[:2], -1).sum(axis=-1)
        return x_s, jnp.where(last, 0.0, log_ratio)

    def finish(self, keys: Array, x_s: Array, memory: Particles, s: Array) -> tuple[Array, Particles]:
        """After the last step: particles that are resampled by their weights, with p(y | x_0)."""
        measured = jax.vmap(jax.vmap(self.measurement.forward))(x_s)
        errors = jnp.square(self.y[:, None] - measured).reshape(*x_s.shape[:2], -1).sum(axis=-1)
        log_weights = memory.log_weights - 0.5 * errors / jnp.square(jnp.asarray(self.measurement.sigma, x_s.dtype))
        last = jnp.broadcast_to(s == 0, x_s.shape[:1])
        effective = jnp.where(last, jnp.minimum(memory.effective, _effective(log_weights)), memory.effective)
        x_0 = _pick(x_s, _resampled(keys, log_weights, last))
        return x_0, Particles(jnp.where(last[:, None], 0.0, memory.log_weights), effective)


def _fresh(x_T: Array) -> Particles:
    batch, particles = x_T.shape[:2]
    return Particles(jnp.zeros((batch, particles)), jnp.full(batch, float(particles)))


def _effective(log_weights: Float[Array, "batch particles"]) -> Float[Array, " batch"]:
    """The effective sample size (sum of weights)^2 / sum of squares."""
    return 1 / jnp.square(jax.nn.softmax(log_weights, axis=1)).sum(axis=1)


def _pick(values: Array, chosen: Int[Array, "batch particles"]) -> Array:
    """The values [batch, particles, ...] of the chosen particles of each image."""
    return jax.vmap(lambda rows, index: rows[index])(values, chosen)


def _resampled(
    keys: Key[Array, " batch"], log_weights: Float[Array, "batch particles"], where: Bool[Array, " batch"]
) -> Int[Array, "batch particles"]:
    """The particles that systematic resampling chooses, where `where`; else each particle itself."""
    count = log_weights.shape[1]

    def one(key: Array, log_weights: Array, where: Array) -> Array:
        key_offset, key_turn = jax.random.split(key)
        # turned, since in order the first place would always have one of the first particles
        order = (jnp.arange(count) + jax.random.randint(key_turn, (), 0, count)) % count
        points = (order + jax.random.uniform(key_offset, dtype=log_weights.dtype)) / count
        chosen = jnp.searchsorted(jnp.cumsum(jax.nn.softmax(log_weights)), points)
        return jnp.where(where, jnp.minimum(chosen, count - 1), jnp.arange(count))

    return jax.vmap(one)(keys, log_weights, where)
