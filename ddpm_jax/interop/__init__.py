"""Checkpoints of other libraries as plain dictionaries and arrays, in and out: diffusers' ``UNet2DModel`` folders."""

from ddpm_jax.interop import folders, schedulers, tensors, unets

__all__ = ["folders", "schedulers", "tensors", "unets"]
