"""DDIM: sampling with less noise than ancestral sampling, or none (Song et al. 2021)."""

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from ddpm_jax.diffusion.gaussian import q_sample
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


def encoder(
    process: Process, parameterization: Parameterization, network: Network, condition: Array | None = None
) -> Sampler:
    """The steps of DDIM without noise taken upwards, from x_0 to x_T (Song et al. 2021, Section 4.3 and Eq. 14).

        x_s = sqrt(alpha_bar_s) x_0(x_t, t) + sqrt(1 - alpha_bar_s) eps(x_t, t),    s > t

    For rising times, from 0 to T: ``samplers.sample(keys, encoder(...), x_0, times[::-1])`` returns x_T, from which
    `ddim` returns to x_0, up to an error that falls with the number of steps. At t = 0 the network is evaluated at t =
    1. A parameterization that clips x_0 loses what it clips: use `Parameterization.unclipped`.
    """
    process.require_gaussian("DDIM")

    def step(keys: Array, x_t: Array, memory: None, t: Array, s: Array) -> tuple[Array, None]:
        del keys
        at = jnp.maximum(t, 1)
        x_0 = parameterization.x_0(network(x_t, at, condition), x_t, at)
        eps = noise_of(process, x_t, x_0, at)
        return q_sample(process.schedule, jnp.where(t > 0, x_0, x_t), s, eps), memory

    return Sampler(init=lambda x_T: None, step=step)


def noise_of(process: Process, x_t: Array, x_0: Array, t: ArrayLike) -> Array:
    """The noise eps with x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps."""
    alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
    return (x_t - jnp.sqrt(alpha_bar) * x_0) / jnp.sqrt(one_minus)
