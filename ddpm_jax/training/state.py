"""The state of a training run after a step: the arrays that a checkpoint contains."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

EMA = "ema"
"""The name of the averaged parameters that are used for sampling and evaluation."""


class TrainState(NamedTuple):
    """The state of a training run. The random keys and the position in the data follow from the seed and the step."""

    step: Int[Array, ""]
    params: Any
    averages: dict[str, Any]
    """Averages of the parameters over the steps, by name; `EMA` is always one of them."""
    opt_state: Any
    history: Any = None
    """Arrays that a train step keeps for later steps, such as the losses by t for importance sampling of t, or None."""


def create(
    params: Any, optimizer: optax.GradientTransformation, averages: Iterable[str] = (EMA,), history: Any = None
) -> TrainState:
    """The state at step 0. Each average starts as `params`, as in the released code of Ho et al. 2020."""
    started = dict.fromkeys(averages, params)
    return TrainState(jnp.zeros((), jnp.int32), params, started, optimizer.init(params), history)
