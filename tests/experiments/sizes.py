"""The U-Nets of Ho et al. 2020 at their full sizes, to be planned and never trained."""

import optax

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.networks import UNet


def experiment(*, height: int = 32, batch_size: int = 128) -> Experiment:
    """CIFAR-10's network at 32, that of CelebA-HQ and LSUN at 256."""
    process = gaussian.process(schedules.linear(1000))
    multipliers = {32: (1, 2, 2, 2), 256: (1, 1, 2, 2, 4, 4)}[height]
    return Experiment(
        data=Data("none", (height, height, 3), open=lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process),
        network=UNet(multipliers=multipliers),
        optimizer=optax.adam(2e-4),
        batch_size=batch_size,
        num_steps=800_000,
        ema_decay=0.9999,
    )
