"""Ancestral sampling: each step draws x_s from the kernel p(x_s | x_t)."""

import jax.numpy as jnp
from jaxtyping import Array

from ddpm_jax.diffusion.types import Kernel, Network, Parameterization, Process, Sampler


def reverse(parameterization: Parameterization, network: Network, condition: Array | None = None) -> Kernel:
    """The kernel p(x_s | x_t) of a parameterization and a network (Ho et al. 2020, Eq. 1)."""
    return lambda x_t, t, s: parameterization.kernel(network(x_t, t, condition), x_t, t, s)


def ancestral(kernel: Kernel) -> Sampler:
    """A sampler that draws x_s from the kernel (Ho et al. 2020, Algorithm 2).

        x_s ~ p(x_s | x_t)  for s > 0,    x_0 = mode of p(x_0 | x_t)

    The last step, to x_0, adds no noise.
    """

    def step(keys, x_t, memory, t, s):
        dist = kernel(x_t, t, s)
        return jnp.where(s > 0, dist.sample(keys), dist.mode()), memory

    return Sampler(init=lambda x_T: None, step=step)


def ddpm(
    process: Process, parameterization: Parameterization, network: Network, condition: Array | None = None
) -> Sampler:
    """Ancestral sampling of the kernel of the parameterization (Ho et al. 2020, Algorithm 2).

        x_s = mean of p(x_s | x_t) + sqrt(variance) z,    z ~ N(0, 1), and z = 0 for s = 0

    Takes steps of any length, unless the network outputs the variance (`parameterizations.learned`): then all T steps.
    For Gaussian data of variance 0 to 1, and the best network, the variance of x_s is right at any stride with
    `fixed_small` if that of the data is 0, too small otherwise; with `fixed_large` it is right if that of the data is
    1, too large otherwise; with `analytic` it is right. The parameterizations of 2015 lie between the truth and
    `fixed_large`. Bits that are independent are exact at any stride.
    """
    del process  # the parameterization has it; the signature is that of `ddim`
    sampler = ancestral(reverse(parameterization, network, condition))
    return sampler._replace(single_steps=parameterization.single_steps)
