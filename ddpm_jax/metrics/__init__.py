"""Metrics of sets of images: functions from arrays to numbers."""

from ddpm_jax.metrics.authenticity import authenticity
from ddpm_jax.metrics.errors import Estimate, jackknife
from ddpm_jax.metrics.features import extract, pixels
from ddpm_jax.metrics.frechet import frechet, frechet_at_infinity, frechet_distance
from ddpm_jax.metrics.inception_score import inception_score
from ddpm_jax.metrics.kid import kid, kid_subsets
from ddpm_jax.metrics.manifold import shares
from ddpm_jax.metrics.moments import Moments, block_moments, merge, moments
from ddpm_jax.metrics.nearest import nearest
from ddpm_jax.metrics.parzen import parzen
from ddpm_jax.metrics.statistics import Statistics, read_images, read_statistics, write_statistics

__all__ = [
    "Estimate",
    "Moments",
    "Statistics",
    "authenticity",
    "block_moments",
    "extract",
    "frechet",
    "frechet_at_infinity",
    "frechet_distance",
    "inception_score",
    "jackknife",
    "kid",
    "kid_subsets",
    "merge",
    "moments",
    "nearest",
    "parzen",
    "pixels",
    "read_images",
    "read_statistics",
    "shares",
    "write_statistics",
]
