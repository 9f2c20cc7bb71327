"""Samplers: from noise to data. Each is a rule for one step; `sample` applies it over the times in one `lax.scan`."""

from collections.abc import Callable, Mapping
from functools import partial

from ddpm_jax.diffusion.samplers.ancestral import ancestral, ddpm, reverse
from ddpm_jax.diffusion.samplers.ddim import ddim, encoder
from ddpm_jax.diffusion.samplers.dpm_solver import multistep, singlestep
from ddpm_jax.diffusion.samplers.heun import heun
from ddpm_jax.diffusion.samplers.optimal import best_times, optimal, path_cost, step_costs, step_terms
from ddpm_jax.diffusion.samplers.pndm import pndm
from ddpm_jax.diffusion.samplers.times import (
    SPACINGS,
    Fractions,
    Spacing,
    even,
    karras,
    leading,
    linspace,
    logsnr,
    quadratic,
    times,
    whole,
)
from ddpm_jax.diffusion.samplers.walk import check_times, frame_times, rising, sample, sample_path, stretch
from ddpm_jax.diffusion.types import Sampler

SAMPLERS: Mapping[str, Callable[..., Sampler]] = {
    "ancestral": ddpm,
    "ddim": ddim,
    "dpm++2m": multistep,
    "dpm++3m": partial(multistep, order=3),
    "dpm++2m-sde": partial(multistep, eta=1.0),
    "dpm++2s": singlestep,
    "heun": heun,
    "plms": partial(pndm, runge_kutta=False),
    "pndm": pndm,
}
"""The samplers by name: functions of (process, parameterization, network, condition) that return a Sampler."""

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "Fractions",
    "Spacing",
    "ancestral",
    "best_times",
    "check_times",
    "ddim",
    "ddpm",
    "encoder",
    "even",
    "frame_times",
    "heun",
    "karras",
    "leading",
    "linspace",
    "logsnr",
    "multistep",
    "optimal",
    "path_cost",
    "pndm",
    "quadratic",
    "reverse",
    "rising",
    "sample",
    "sample_path",
    "singlestep",
    "step_costs",
    "step_terms",
    "stretch",
    "times",
    "whole",
]
