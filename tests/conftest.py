"""What every test runs under: eight fake CPU devices, JAX's strict modes, and array types checked at run time."""

import os

# Before the first import of jax, which reads it once. Appended, so that the caller's own flags stay.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax
import jaxtyping
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("ddpm_jax", "beartype.beartype")


@pytest.fixture
def x64():
    """Runs the test in float64, for laws that hold to the last digits."""
    with jax.enable_x64(True):
        yield
