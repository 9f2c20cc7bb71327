"""A run on the digits with one convolution as its network: all that training does, in a second or two."""

import optax
from flax import linen as nn

from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment


class Line(nn.Module):
    """A linear function of x_t, the same at every t."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return nn.Conv(1, (3, 3))(x)


def experiment(
    *,
    timesteps: int = 9,
    num_steps: int = 6,
    learning_rate: float = 1e-2,
    evaluate_every: int | None = 2,
    save_every: int = 3,
    seed: int = 0,
) -> Experiment:
    """A run in seconds.

    Args:
        seed: Seed of all randomness.
    """
    data = digits()
    process = gaussian.process(schedules.linear(timesteps, 0.02, 0.7), gaussian.discretized(data.levels))
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(process, parameterizations.eps(process)),
        network=Line(),
        optimizer=optax.adam(learning_rate),
        batch_size=8,
        num_steps=num_steps,
        ema_decay=0.5,
        seed=seed,
        every=Every(log=1, sample=0, save=save_every, evaluate=evaluate_every),
    )
