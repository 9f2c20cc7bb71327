"""Squared errors weighted by the signal-to-noise ratio, at timesteps that are drawn evenly or independently."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.losses.reductions import Draw, diffuse, per_example, uniform
from ddpm_jax.diffusion.schedules import signal_to_noise
from ddpm_jax.diffusion.types import Network, Parameterization, Process

Weight = Callable[[Array], Array]
"""``weight(snr)`` -> the weight of the squared error of x_0 at this signal-to-noise ratio."""


class Weighted(NamedTuple):
    """A loss: the squared error of the estimate of x_0, weighted. Call it as the other losses.

        x_t  = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise,    snr = alpha_bar_t / (1 - alpha_bar_t)
        loss = weight(snr) mean over elements of (x_0 - estimate of x_0)^2,    the estimate without clipping

    The same loss for every parameterization. With the weight snr it is `simple` for `parameterizations.eps`. `draw` is
    `uniform`, `stratified` or `antithetic`. For Gaussian processes; raises ValueError for others.
    """

    weight: Weight
    draw: Draw = uniform

    def __call__(
        self,
        key: Key[Array, ""],
        process: Process,
        parameterization: Parameterization,
        network: Network,
        x_0: Float[Array, "batch *shape"],
        condition: Array | None = None,
    ) -> Float[Array, " batch"]:
        """The loss of each example."""
        process.require_gaussian("a weighted loss")
        t, _, x_t = diffuse(key, process, x_0, self.draw)
        estimate = parameterization.unclipped().x_0(network(x_t, t, condition), x_t, t)
        return self.weight(signal_to_noise(process.schedule, t)) * per_example(jnp.mean, jnp.square(x_0 - estimate))


def min_snr(gamma: float = 5.0, draw: Draw = uniform) -> Weighted:
    """The weight min(snr, gamma) of the error of x_0 (Hang et al. 2023, Eq. 7, min-SNR-gamma)."""
    return Weighted(partial(_at_most, gamma), draw)


def truncated_snr(draw: Draw = uniform) -> Weighted:
    """The weight max(snr, 1) of the error of x_0 (Salimans & Ho 2022, Section 4)."""
    return Weighted(_at_least_one, draw)


def p2(power: float = 1.0, offset: float = 1.0, draw: Draw = uniform) -> Weighted:
    """The weight snr / (offset + snr)^power of the error of x_0: less near the data (Choi et al. 2022, Eq. 8)."""
    return Weighted(partial(_p2, power, offset), draw)


def _at_most(gamma: float, snr: Array) -> Array:
    return jnp.minimum(snr, gamma)


def _at_least_one(snr: Array) -> Array:
    return jnp.maximum(snr, 1.0)


def _p2(power: float, offset: float, snr: Array) -> Array:
    return snr / (offset + snr) ** power


def stratified(key: Key[Array, ""], batch: int, num_steps: int) -> Int[Array, " batch"]:
    """One t in each of `batch` strata of 1..T, with one shared offset (Kingma et al. 2021, Appendix I.1).

    t = 1 + floor(T ((u + i / batch) mod 1)),    u ~ U(0, 1),    i = 0 .. batch - 1
    """
    offset = jax.random.uniform(key)
    return 1 + jnp.minimum(num_steps * ((offset + jnp.arange(batch) / batch) % 1), num_steps - 1).astype(jnp.int32)


def antithetic(key: Key[Array, ""], batch: int, num_steps: int) -> Int[Array, " batch"]:
    """Pairs t, T + 1 - t: the first half of the batch is uniform, the second mirrors it (Song et al. 2021, code)."""
    half = uniform(key, (batch + 1) // 2, num_steps)
    return jnp.concatenate([half, num_steps + 1 - half])[:batch]
