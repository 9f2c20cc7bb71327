"""Checkpoints of other libraries, as plain dictionaries and arrays.

Reads and writes diffusers' ``UNet2DModel``, and reads the files of improved-diffusion and guided-diffusion.
"""

from ddpm_jax.interop import folders, openai, schedulers, tensors, torch_files, unets

__all__ = ["folders", "openai", "schedulers", "tensors", "torch_files", "unets"]
