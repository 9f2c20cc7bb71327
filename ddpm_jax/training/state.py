"""The state of a run after a step: arrays only, which is all that a checkpoint holds."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

EMA = "ema"
"""The name of the average that is sampled from and evaluated."""


class TrainState(NamedTuple):
    """Holds no random state and no position in the data: both follow from the seed and the step."""

    step: Int[Array, ""]
    params: Any
    averages: dict[str, Any]
    """Averages of the parameters by name; `EMA` is always there."""
    opt_state: Any
    history: Any = None
    """What the loss keeps from step to step, such as the losses by t for importance sampling; None if nothing."""


def create(
    params: Any, optimizer: optax.GradientTransformation, averages: Iterable[str] = (EMA,), history: Any = None
) -> TrainState:
    """The state at step 0. Averages start at the parameters, as in the released code of Ho et al. 2020."""
    started = dict.fromkeys(averages, params)
    return TrainState(jnp.zeros((), jnp.int32), params, started, optimizer.init(params), history)
