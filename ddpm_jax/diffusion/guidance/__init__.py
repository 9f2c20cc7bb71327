"""Guidance: networks, kernels and samplers changed towards a condition. Each wrapper has the type of what it wraps."""

from ddpm_jax.diffusion.guidance.classifier import Classifier, class_gradient, classifier_shift, labelled
from ddpm_jax.diffusion.guidance.labels import Scale, autoguidance, classifier_free, limited
from ddpm_jax.diffusion.guidance.products import LogGradient, annealed, inpaint, multiplied, tilted

__all__ = [
    "Classifier",
    "LogGradient",
    "Scale",
    "annealed",
    "autoguidance",
    "class_gradient",
    "classifier_free",
    "classifier_shift",
    "inpaint",
    "labelled",
    "limited",
    "multiplied",
    "tilted",
]
