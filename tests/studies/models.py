"""A run on images whose network is the optimum for data N(0, 1/4)."""

from typing import Any

import jax.numpy as jnp
import optax
from flax import linen as nn

from ddpm_jax.data import digits
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, Run


class Shrinking(nn.Module):
    """E[noise | x_t] for data N(0, 1/4). Samples keep much of their x_t, which few steps do not wash out.

    With classes the data are N(label / 4, 1/4), and without a label N(0, 1/4).
    """

    alpha_bar: tuple[float, ...]
    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        mean = jnp.zeros(len(x)) if label is None else label / 4
        alpha_bar, mean = jnp.asarray(self.alpha_bar)[index + 1][:, None, None, None], mean[:, None, None, None]
        return jnp.sqrt(1 - alpha_bar) * (x - jnp.sqrt(alpha_bar) * mean) / (alpha_bar / 4 + 1 - alpha_bar)


def shrinking_run(T: int = 16, num_classes: int | None = None, **changes: Any) -> Run:
    """The run, with T steps; `changes` are arguments of the Experiment."""
    process = gaussian.process(schedules.linear(T, 0.01, 0.5), gaussian.discretized(17))
    experiment = Experiment(
        data=digits(),
        process=process,
        parameterization=parameterizations.eps(process),
        network=Shrinking(tuple(map(float, process.schedule.alpha_bar)), num_classes),
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
        **changes,
    )
    return Run(experiment, {}, 7)
