"""Sampling in parts with a run's own sampler, and keys for the noise of a study that is not noise of the sampler.

Sampling over all T steps is called a walk. It folds 0 into the key of an example for x_T, and 1 .. T for its steps.
Studies fold T + 1 for the noise that they add and T + 2 for a random encoding, so no two draws share a key.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Key

from ddpm_jax.diffusion import samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.experiment import Experiment
from ddpm_jax.sampling import Run, sampler_fn

Label = Array | np.ndarray | None
State = tuple[Array, Any]
"""(x_t [batch, ...], the memory of the sampler)."""


class Walk(NamedTuple):
    """A run's own sampler over all T steps, in parts. The result is the same as without a division into parts."""

    start: Callable[[Array, Label], State]
    """``start(x, condition)`` -> the state at x before the first step. A walk may start at any t."""
    advance: Callable[[Key[Array, " batch"], State, int, int, Label], State]
    """``advance(keys, state, t, s, condition)`` -> the state at time s, from the state at time t >= s. One compilation
    serves all t and s."""


def walk(run: Run) -> Walk:
    """The walk with the sampler and the parameters of this run."""
    T, sampler_of = run.experiment.process.schedule.num_steps, sampler_fn(run.experiment)

    @jax.jit
    def start(params, x, condition):
        return x, sampler_of(params, condition).init(x)

    @jax.jit
    def advance(params, batch_keys, state, t, s, condition):
        sampler, (x, memory) = sampler_of(params, condition), state
        return samplers.stretch(batch_keys, sampler, x, memory, samplers.times(T, T), T - t, T - s)

    return Walk(Partial(start, run.params), Partial(advance, run.params))


def noise_keys(experiment: Experiment, batch_keys: Key[Array, " batch"]) -> Key[Array, " batch"]:
    """Keys for the noise that a study adds to its examples, one per key."""
    return fold(batch_keys, experiment.process.schedule.num_steps + 1)


def encoding_keys(experiment: Experiment, batch_keys: Key[Array, " batch"]) -> Key[Array, " batch"]:
    """Keys for the encoding of examples, which may be random, one per key."""
    return fold(batch_keys, experiment.process.schedule.num_steps + 2)


def check_times(run: Run, times: Sequence[int], least: int = 1) -> None:
    """Raises ValueError for a time below `least` or above T."""
    T = run.experiment.process.schedule.num_steps
    for t in times:
        if not least <= t <= T:
            raise ValueError(f"--times must be between {least} and {T}, got {t}")
