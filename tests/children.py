"""The environment of the processes that tests start."""

import os
from importlib.metadata import version

from ddpm_jax.system import cpu


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a user with this number of devices, but for the time that compilation takes.

    Programs with oneDNN cannot be kept, and each process would compile the same ones again: it is left out.
    """
    known = version("jaxlib").startswith(tuple(cpu.FLAGS))
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return os.environ | {"XLA_FLAGS": f"{flags} {cpu.YNNPACK_SUMS_ONLY if known else ''}".strip()}
