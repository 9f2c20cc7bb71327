"""What a run is at one step: arrays only, so that a checkpoint needs no care."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class TrainState(NamedTuple):
    """The randomness of a step comes from (seed, step), the data from the step: neither has state to keep."""

    step: Int[Array, ""]
    params: Any
    ema: Any
    """The exponential moving average of the parameters: what is sampled from and evaluated."""
    opt_state: Any


def create(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0; the average starts at the parameters, as in the code of Ho et al. 2020."""
    return TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))
