"""Checkpoints of other libraries, as plain dictionaries and arrays: reads and writes diffusers' ``UNet2DModel``."""

from ddpm_jax.interop import folders, schedulers, tensors, unets

__all__ = ["folders", "schedulers", "tensors", "unets"]
