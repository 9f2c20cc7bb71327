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
