"""Diffusion probabilistic models in JAX and Flax: training, sampling and measuring, from 2015's paper on."""

from ddpm_jax.experiment import Every, Experiment, Run, keys
from ddpm_jax.workdir import load

__version__ = "0.1.0"
__all__ = ["Every", "Experiment", "Run", "__version__", "keys", "load"]
