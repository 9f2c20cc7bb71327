"""Metrics of sets of images: functions from arrays to numbers."""

from ddpm_jax.metrics.frechet import frechet_distance
from ddpm_jax.metrics.nearest import nearest
from ddpm_jax.metrics.parzen import parzen

__all__ = ["frechet_distance", "nearest", "parzen"]
