"""Measures of sets of images: arrays in, numbers out."""

from ddpm_jax.metrics.frechet import frechet_distance

__all__ = ["frechet_distance"]
