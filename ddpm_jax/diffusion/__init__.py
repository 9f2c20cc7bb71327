"""The mathematics of diffusion: schedules, processes, parameterizations, losses and samplers. Pure functions only."""

from ddpm_jax.diffusion import (
    binomial,
    distributions,
    gaussian,
    guidance,
    losses,
    parameterizations,
    samplers,
    schedules,
)
from ddpm_jax.diffusion.process import Process
from ddpm_jax.diffusion.schedules import Schedule

__all__ = [
    "Process",
    "Schedule",
    "binomial",
    "distributions",
    "gaussian",
    "guidance",
    "losses",
    "parameterizations",
    "samplers",
    "schedules",
]
