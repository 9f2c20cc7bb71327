"""Diffusion probabilistic models in JAX and Flax: training, sampling and measuring, from 2015's paper on."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_jax.experiment import Claim, Every, Experiment, Run, keys
    from ddpm_jax.workdir import load

__version__ = "0.1.0"
__all__ = ["Claim", "Every", "Experiment", "Run", "__version__", "keys", "load"]


def __getattr__(name: str) -> Any:
    """The front-door names, imported when first asked for: a room alone, or --help, does not wait for the hall."""
    if name not in __all__:
        raise AttributeError(f"module 'ddpm_jax' has no attribute {name!r}")
    from ddpm_jax import experiment, workdir

    return getattr(workdir if name == "load" else experiment, name)
