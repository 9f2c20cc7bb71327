"""Guidance by labels, other networks, factors and measurements. Each wrapper has the type of what it wraps."""

from ddpm_jax.diffusion.guidance import measurements
from ddpm_jax.diffusion.guidance.classifier import Classifier, class_gradient, classifier_shift, labelled
from ddpm_jax.diffusion.guidance.editing import part_from, repaint, repaint_times, sdedit, slerp
from ddpm_jax.diffusion.guidance.labels import Scale, autoguidance, classifier_free, limited
from ddpm_jax.diffusion.guidance.measurements import LinearMeasurement, dps, mmps, pigdm
from ddpm_jax.diffusion.guidance.particles import Particles, twisted
from ddpm_jax.diffusion.guidance.products import LogGradient, annealed, inpaint, multiplied, tilted

__all__ = [
    "Classifier",
    "LinearMeasurement",
    "LogGradient",
    "Particles",
    "Scale",
    "annealed",
    "autoguidance",
    "class_gradient",
    "classifier_free",
    "classifier_shift",
    "dps",
    "inpaint",
    "labelled",
    "limited",
    "measurements",
    "mmps",
    "multiplied",
    "part_from",
    "pigdm",
    "repaint",
    "repaint_times",
    "sdedit",
    "slerp",
    "tilted",
    "twisted",
]
