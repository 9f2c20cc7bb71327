"""Training of anything with a ``loss_fn(params, key, batch)``: state, step, sharding, checkpoints, log and loop."""

from ddpm_jax.training import checkpoints, distributed, sharding
from ddpm_jax.training.log import Log
from ddpm_jax.training.loop import Action, Diverged, StopRequest, fit
from ddpm_jax.training.state import TrainState, create
from ddpm_jax.training.step import accumulate, clip_in_parts, ema_ramp, gather_steps, make_train_step

__all__ = [
    "Action",
    "Diverged",
    "Log",
    "StopRequest",
    "TrainState",
    "accumulate",
    "checkpoints",
    "clip_in_parts",
    "create",
    "distributed",
    "ema_ramp",
    "fit",
    "gather_steps",
    "make_train_step",
    "sharding",
]
