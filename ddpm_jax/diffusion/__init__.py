"""The mathematics of diffusion: schedules, processes, parameterizations, losses and samplers. Pure functions only.

Arrays are these, unless a docstring states otherwise:

- `x_0`, `x_s`, `x_t`, `x_T`, `noise`, `output`: float32 [batch, ..], such as [batch, height, width, channels], all of
  one shape. Images have values in [-1, 1], bits are 0 or 1. The output has more channels where the variance is learned.
- `t`, `s`: times, 0 for the data or in [1, T], integer or real; a scalar, or one for each example, [batch].
- `condition`, `label`: classes, int32 [batch]; None without labels.
- `key`: one random key. `keys`: one for each example, [batch], so that its sample does not depend on the others.
- `eta`, `scale`, `sigma`, `churn`, `noise_scale`, `quantile`, `low`, `high`: numbers. They may be traced: a jitted
  function that has them as arguments is compiled once for all values.

Losses, log probabilities and divergences are in nats, unless the docstring states bits. A year stands for a paper: 2015
for Sohl-Dickstein et al. 2015, others with their authors.
"""

from ddpm_jax.diffusion import (
    binomial,
    distributions,
    gaussian,
    guidance,
    losses,
    parameterizations,
    samplers,
    schedules,
    types,
)
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Kernel, Network, Parameterization, Process, Sampler

__all__ = [
    "Kernel",
    "Network",
    "Parameterization",
    "Process",
    "Sampler",
    "Schedule",
    "binomial",
    "distributions",
    "gaussian",
    "guidance",
    "losses",
    "parameterizations",
    "samplers",
    "schedules",
    "types",
]
