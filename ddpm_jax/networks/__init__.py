"""Networks in Flax Linen: ``(x, index, condition)`` -> output, and nothing else of diffusion."""

from ddpm_jax.networks.mlp import MLP
from ddpm_jax.networks.multiscale import MultiScale
from ddpm_jax.networks.per_step import RadialBasis, SigmoidMLP
from ddpm_jax.networks.unet import UNet

__all__ = ["MLP", "MultiScale", "RadialBasis", "SigmoidMLP", "UNet"]
