"""Runs whose networks are optimal for data with a known distribution: images, points and sequences of bits."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from ddpm_jax.data import Data, digits, heartbeat
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import Parameterization, Process, binomial, gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.sampling import Run


def run_of(data: Data, process: Process, parameterization: Parameterization, network: nn.Module, **changes: Any) -> Run:
    """The run of a network without parameters; `changes` are other arguments of the Experiment."""
    experiment = Experiment(
        data=data,
        process=process,
        parameterization=parameterization,
        network=network,
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
        **changes,
    )
    return Run(experiment, {}, 7)


class Shrinking(nn.Module):
    """E[noise | x_t] for data N(0, 1/4). Samples keep much of their x_t, which few steps do not wash out.

    With classes the data are N(label / 4, 1/4), and without a label N(0, 1/4).
    """

    alpha_bar: tuple[float, ...]
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        mean = jnp.zeros(len(x)) if label is None else label / 4
        alpha_bar, mean = jnp.asarray(self.alpha_bar)[index + 1][:, None, None, None], mean[:, None, None, None]
        return jnp.sqrt(1 - alpha_bar) * (x - jnp.sqrt(alpha_bar) * mean) / (alpha_bar / 4 + 1 - alpha_bar)


def shrinking_run(T: int = 16, num_classes: int | None = None, **changes: Any) -> Run:
    """A run on images of 8x8 pixels."""
    process = gaussian.process(schedules.linear(T, 0.01, 0.5), gaussian.discretized(17))
    network = Shrinking(tuple(map(float, process.schedule.alpha_bar)), num_classes)
    return run_of(digits(), process, parameterizations.eps(process), network, **changes)


class Normals(nn.Module):
    """E[noise | x_t] for data N(0, 1), whose reverse chain is the forward one."""

    one_minus_alpha_bar: tuple[float, ...]

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.sqrt(jnp.asarray(self.one_minus_alpha_bar)[index + 1])[:, None] * x


def normals_run(T: int) -> Run:
    """A run on points in the plane, N(0, 1) in each coordinate."""
    process = gaussian.process(schedules.linear(T, 1e-4, 0.1), gaussian.density)
    draws = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    data = Data("normals", (2,), lambda split: [{"image": row} for row in draws], levels=None)
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    network = Normals(tuple(map(float, process.schedule.one_minus_alpha_bar)))
    return run_of(data, process, parameterization, network, encoding=points())


class Pulses(nn.Module):
    """E[x_0 | x_t] as logits, for the five sequences of the heartbeat: exactly, by Bayes' rule."""

    alpha_bar: tuple[float, ...]

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        sequences = jnp.asarray(np.arange(20) % 5 == np.arange(5)[:, None], jnp.float32)
        alpha_bar = jnp.asarray(self.alpha_bar)[index + 1][:, None, None]
        one = sequences[None] * alpha_bar + 0.2 * (1 - alpha_bar)
        log_prob = jnp.log(jnp.where(x[:, None] > 0.5, one, 1 - one)).sum(axis=-1)
        share = jnp.einsum("nk,kd->nd", jnp.exp(log_prob - log_prob.max(axis=1, keepdims=True)), sequences)
        share /= jnp.exp(log_prob - log_prob.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)
        return jnp.log(jnp.clip(share, 1e-7, 1)) - jnp.log(jnp.clip(1 - share, 1e-7, 1))


def pulses_run(T: int) -> Run:
    """A run on sequences of 20 bits."""
    process = binomial.process(schedules.steady(T), 0.2)
    network = Pulses(tuple(map(float, process.schedule.alpha_bar)))
    return run_of(heartbeat(100), process, parameterizations.logits(process), network)
