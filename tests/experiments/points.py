"""Points with a loss that keeps a history and two averages besides the EMA: what a train state can hold, in seconds."""

import optax

from ddpm_jax import training
from ddpm_jax.data import swiss_roll
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import MLP


def experiment(
    *,
    num_steps: int = 10,
    save_every: int = 2,
    power_ema: bool = True,
    importance: bool = True,
    width: int = 16,
    seed: int = 0,
) -> Experiment:
    """A tiny run on points. Two losses fill the history of a t, which a few steps of 32 points do at every t.

    Args:
        seed: Seed of all randomness.
    """
    process = gaussian.process(schedules.linear(4, 0.02, 0.7), gaussian.density)
    return Experiment(
        data=swiss_roll(num_train=64),
        process=process,
        parameterization=parameterizations.eps(process),
        network=MLP(width, depth=1),
        optimizer=optax.adam(1e-2),
        loss=losses.Importance(last=2) if importance else losses.simple,
        encoding=points(),
        batch_size=32,
        num_steps=num_steps,
        ema_decay=0.9,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=1, sample=0, save=save_every),
        metrics=("K",),
    )
