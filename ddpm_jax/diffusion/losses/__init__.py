"""Losses for training, and the variational bound for measurement. They work for any process and parameterization."""

from ddpm_jax.diffusion.losses.bound import Bound, bound, hybrid, variational
from ddpm_jax.diffusion.losses.classification import classification, cross_entropy, often_clean
from ddpm_jax.diffusion.losses.importance import History, Importance, Seen
from ddpm_jax.diffusion.losses.paper_2015 import (
    entropy_bounds,
    fixed_decoder,
    log_likelihood,
    negative_K,
    shared,
)
from ddpm_jax.diffusion.losses.reductions import uniform
from ddpm_jax.diffusion.losses.simple import simple
from ddpm_jax.diffusion.losses.terms import Terms, terms
from ddpm_jax.diffusion.losses.weighted import Weighted, antithetic, min_snr, p2, stratified, truncated_snr

__all__ = [
    "Bound",
    "History",
    "Importance",
    "Seen",
    "Terms",
    "Weighted",
    "antithetic",
    "bound",
    "classification",
    "cross_entropy",
    "entropy_bounds",
    "fixed_decoder",
    "hybrid",
    "log_likelihood",
    "min_snr",
    "negative_K",
    "often_clean",
    "p2",
    "shared",
    "simple",
    "stratified",
    "terms",
    "truncated_snr",
    "uniform",
    "variational",
]
