"""Networks in Flax Linen: ``(x, index, label, train)`` -> output.

The index is t - 1, from 0 to T - 1, as published weights count; real where t is real.
"""

from ddpm_jax.networks.mlp import MLP
from ddpm_jax.networks.multiscale import MultiScale
from ddpm_jax.networks.per_step import RadialBasis, SigmoidMLP
from ddpm_jax.networks.unet import UNet

__all__ = ["MLP", "MultiScale", "RadialBasis", "SigmoidMLP", "UNet"]
