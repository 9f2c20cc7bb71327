"""The rule of the house: rooms import nothing of each other, and nothing of the hall."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ddpm_jax"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "ddpm_jax"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself(room):
    for path in (PACKAGE / room).rglob("*.py"):
        strangers = {name for name in imported(path) if not f"{name}.".startswith(f"ddpm_jax.{room}.")}
        assert not strangers, f"{path} imports {strangers}"


def test_the_mathematics_imports_no_files_networks_or_training():
    allowed = {"jax", "numpy", "jaxtyping", "ddpm_jax", "collections", "functools", "typing"}
    for path in (PACKAGE / "diffusion").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, path


def test_experiments_use_public_names_only():
    for path in (PACKAGE.parent / "experiments").rglob("*.py"):
        assert not [name for name in imported(path) if "._" in name], path
