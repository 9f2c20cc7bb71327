"""Diffusion models in JAX and Flax (Sohl-Dickstein et al. 2015, DDPM, DDIM): training, sampling and evaluation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_jax.experiment import Claim, Every, Experiment
    from ddpm_jax.runs.workdir import load
    from ddpm_jax.sampling import Run
    from ddpm_jax.training.keys import keys

__version__ = "0.2.0"
__all__ = ["Claim", "Every", "Experiment", "Run", "__version__", "keys", "load"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that --help, or the import of one subpackage, stays fast."""
    if name not in __all__:
        raise AttributeError(f"module 'ddpm_jax' has no attribute {name!r}")
    from ddpm_jax import experiment, sampling
    from ddpm_jax.runs import workdir
    from ddpm_jax.training import keys

    return getattr({"load": workdir, "keys": keys, "Run": sampling}.get(name, experiment), name)
