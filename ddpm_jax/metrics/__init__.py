"""Measures of sets of images: arrays in, numbers out."""

from ddpm_jax.metrics.frechet import frechet_distance
from ddpm_jax.metrics.parzen import parzen

__all__ = ["frechet_distance", "parzen"]
