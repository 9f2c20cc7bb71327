"""Losses for training, and the variational bound for measurement. They work for any process and parameterization."""

from ddpm_jax.diffusion.losses.bound import Bound, bound, variational
from ddpm_jax.diffusion.losses.paper_2015 import (
    entropy_bounds,
    fixed_decoder,
    log_likelihood,
    negative_K,
)
from ddpm_jax.diffusion.losses.simple import simple

__all__ = [
    "Bound",
    "bound",
    "entropy_bounds",
    "fixed_decoder",
    "log_likelihood",
    "negative_K",
    "simple",
    "variational",
]
