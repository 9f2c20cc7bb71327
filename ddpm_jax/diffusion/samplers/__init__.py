"""Samplers: from noise to data. Each is a rule for one step; `sample` applies it over the times in one `lax.scan`."""

from collections.abc import Callable, Mapping

from ddpm_jax.diffusion.samplers.ancestral import ancestral, ddpm, reverse
from ddpm_jax.diffusion.samplers.ddim import ddim
from ddpm_jax.diffusion.samplers.times import SPACINGS, Spacing, even, quadratic, times
from ddpm_jax.diffusion.samplers.walk import check_times, frame_times, rising, sample, sample_path, stretch
from ddpm_jax.diffusion.types import Sampler

SAMPLERS: Mapping[str, Callable[..., Sampler]] = {"ancestral": ddpm, "ddim": ddim}
"""The samplers by name: functions of (process, parameterization, network, condition) that return a Sampler."""

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "Spacing",
    "ancestral",
    "check_times",
    "ddim",
    "ddpm",
    "even",
    "frame_times",
    "quadratic",
    "reverse",
    "rising",
    "sample",
    "sample_path",
    "stretch",
    "times",
]
