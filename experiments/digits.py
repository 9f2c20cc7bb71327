"""scikit-learn's 8x8 handwritten digits: real images that ship in a wheel, trained on a laptop's CPU in minutes.

ddpm-jax train digits --workdir runs/digits
"""

import optax

from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet


def experiment(
    *,
    timesteps: int = 1000,
    width: int = 32,
    num_steps: int = 1500,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    ema_decay: float = 0.995,
    seed: int = 0,
) -> Experiment:
    """The run.

    Args:
        timesteps: T, the steps of the diffusion.
    """
    data = digits()
    process = gaussian.process(schedules.linear(timesteps), gaussian.discretized(data.levels))
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, 100, num_steps)
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(process, parameterization),
        network=UNet(width=width, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0, groups=8),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=50, sample=500, save=500),
    )
