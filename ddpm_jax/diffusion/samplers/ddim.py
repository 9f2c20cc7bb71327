"""DDIM: sampling with less noise than ancestral sampling, or none (Song et al. 2021)."""

from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.samplers.ancestral import ancestral
from ddpm_jax.diffusion.types import Network, Parameterization, Process, Sampler


def ddim(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    condition: Array | None = None,
    eta: ArrayLike = 0.0,
) -> Sampler:
    """Denoising diffusion implicit models (Song et al. 2021, Eq. 12).

        x_0 = parameterization.x_0(network(x_t, t), x_t, t)
        eps = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t)
        x_s = sqrt(alpha_bar_s) x_0 + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma z,    z ~ N(0, 1)
        sigma^2 = eta^2 (1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_s)

    Deterministic for eta = 0. For eta = 1 this is the ancestral sampler with variance `fixed_small`. Where the
    parameterization clips x_0, eps is computed from the clipped value (`use_clipped_model_output=True` in diffusers).
    The first step raises ValueError for a binomial process with eta other than 1.
    """

    def bridge(x_t, t, s):
        x_0 = parameterization.x_0(network(x_t, t, condition), x_t, t)
        return process.posterior(x_t, x_0, t, s, eta)

    return ancestral(bridge)
