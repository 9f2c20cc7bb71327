"""The versions of this library and of the packages that results depend on."""

import importlib.metadata
import subprocess
from pathlib import Path

import ddpm_jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str | None]:
    """The versions of this library and of the packages that results depend on; None where one is not installed."""
    return {"ddpm_jax": ddpm_jax.__version__} | {name: _version(name) for name in PACKAGES}


def made_with() -> dict[str, dict[str, str | None] | str | None]:
    """The `versions` and the `commit` of the code, as the records of runs and measurements state them."""
    return {"versions": versions(), "commit": commit()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the library's own source tree; None if it is installed elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
