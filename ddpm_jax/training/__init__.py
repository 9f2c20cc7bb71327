"""Training of any ``loss_fn(params, key, batch)``: state, step, shardings, checkpoints, log and loop."""

from ddpm_jax.training import checkpoints, distributed, sharding
from ddpm_jax.training.log import Log
from ddpm_jax.training.loop import Action, Diverged, StopRequest, fit
from ddpm_jax.training.state import EMA, TrainState, create
from ddpm_jax.training.step import accumulate, clip_in_parts, ema_ramp, gather_steps, make_train_step
from ddpm_jax.training.warmup import warmup

__all__ = [
    "EMA",
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
    "warmup",
]
