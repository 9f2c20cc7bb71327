"""A few training steps of a small classifier of the digits, with the schedule of `tiny`."""

import optax

from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import NoisyClassifier


def experiment(*, timesteps: int = 50, beta_1: float = 0.002, num_steps: int = 4, seed: int = 0) -> Experiment:
    """A tiny classifier.

    Args:
        seed: Seed of all randomness.
    """
    data = digits()
    process = gaussian.process(schedules.linear(timesteps, beta_1, 0.2), gaussian.discretized(data.levels))
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.classes(process),
        network=NoisyClassifier(classes=10, width=4, multipliers=(1, 2), groups=2),
        loss=losses.cross_entropy,
        optimizer=optax.adam(1e-2),
        batch_size=32,
        num_steps=num_steps,
        ema_decay=0.5,
        metrics=("accuracy",),
        seed=seed,
        every=Every(log=2, save=4),
    )
