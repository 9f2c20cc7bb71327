"""Networks in Flax Linen: ``network(x, index, label, train)`` -> output.

The timestep index is t - 1, in [0, T - 1], as in published weights; it is real where t is real.
"""

from ddpm_jax.networks.mlp import MLP
from ddpm_jax.networks.multiscale import MultiScale
from ddpm_jax.networks.noisy_classifier import FEATURES, NoisyClassifier
from ddpm_jax.networks.per_step import RadialBasis, SigmoidMLP
from ddpm_jax.networks.unet import UNet

__all__ = ["FEATURES", "MLP", "MultiScale", "NoisyClassifier", "RadialBasis", "SigmoidMLP", "UNet"]
