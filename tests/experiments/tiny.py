"""Twelve training steps on the digits with a small U-Net: a complete run, in seconds."""

import optax

from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet


def experiment(
    *,
    timesteps: int = 50,
    width: int = 8,
    num_steps: int = 12,
    save_every: int = 4,
    sample_every: int = 12,
    evaluate_every: int | None = None,
    batch_size: int = 8,
    dropout: float = 0.1,
    seed: int = 0,
) -> Experiment:
    """A tiny run.

    Args:
        width: channels of the U-Net.
        seed: Seed of all randomness.
    """
    data = digits()
    process = gaussian.process(schedules.linear(timesteps, 0.002, 0.2), gaussian.discretized(data.levels))
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(process, parameterizations.eps(process)),
        network=UNet(width=width, multipliers=(1,), num_blocks=1, attention=(), dropout=dropout, groups=4),
        optimizer=optax.adam(2e-3),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=0.9,
        seed=seed,
        every=Every(log=2, sample=sample_every, save=save_every, evaluate=evaluate_every),
    )
