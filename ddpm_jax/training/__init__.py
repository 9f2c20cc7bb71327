"""Training of any ``loss_fn(params, key, batch)``: state, step, shardings, checkpoints, log and loop."""

from ddpm_jax.training import best, checkpoints, distributed, sharding, snapshots
from ddpm_jax.training.averages import POWER_LENGTHS, Power, ema_ramp, gamma_of, power_name
from ddpm_jax.training.log import Log
from ddpm_jax.training.loop import Action, Diverged, StopRequest, fit
from ddpm_jax.training.state import EMA, TrainState, create
from ddpm_jax.training.step import accumulate, clip_in_parts, gather_steps, make_train_step
from ddpm_jax.training.warmup import warmup

__all__ = [
    "EMA",
    "POWER_LENGTHS",
    "Action",
    "Diverged",
    "Log",
    "Power",
    "StopRequest",
    "TrainState",
    "accumulate",
    "best",
    "checkpoints",
    "clip_in_parts",
    "create",
    "distributed",
    "ema_ramp",
    "fit",
    "gamma_of",
    "gather_steps",
    "make_train_step",
    "power_name",
    "sharding",
    "snapshots",
    "warmup",
]
