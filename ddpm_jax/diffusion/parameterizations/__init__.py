"""Parameterizations: what the output of a network means.

Each computes an estimate of E[x_0 | x_t], from which the kernel p(x_s | x_t) follows. The functions that make the rules
are cached: equal arguments give the same rules, so a jitted function that has a Parameterization as an argument is
compiled once for all parameterizations of one kind, whatever the values of their schedules.
"""

from ddpm_jax.diffusion.parameterizations.bits import logits
from ddpm_jax.diffusion.parameterizations.classes import classes
from ddpm_jax.diffusion.parameterizations.gaussian import clipped, eps, mean, thresholded, v, x0
from ddpm_jax.diffusion.parameterizations.kernels import at_data
from ddpm_jax.diffusion.parameterizations.paper_2015 import fixed_last, shifted, shrinking
from ddpm_jax.diffusion.parameterizations.variances import (
    analytic,
    fixed_large,
    fixed_small,
    learned,
    learned_range,
    with_variance,
)

__all__ = [
    "analytic",
    "at_data",
    "classes",
    "clipped",
    "eps",
    "fixed_large",
    "fixed_last",
    "fixed_small",
    "learned",
    "learned_range",
    "logits",
    "mean",
    "shifted",
    "shrinking",
    "thresholded",
    "v",
    "with_variance",
    "x0",
]
