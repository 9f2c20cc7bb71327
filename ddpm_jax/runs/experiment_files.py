"""Experiment files: functions that find one by path or shipped name, import it, and describe it."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddpm_jax.experiment import Experiment

ExperimentFunction = Callable[..., Experiment]
"""The function `experiment` of an experiment file; its keyword arguments are its knobs."""


def shipped() -> dict[str, Path]:
    """The experiments that come with the library, by name: ``digits``, ``ho_2020/cifar10``, ..."""
    package = Path(__file__).parents[1]
    # inside the package in an installed wheel, beside it in a source tree
    inside = package / "experiments"
    folder = inside if inside.is_dir() else package.parent / "experiments"
    files = sorted(path for path in folder.rglob("*.py") if not path.name.startswith("_"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find(name: str) -> Path:
    """The experiment file at this path, or the shipped one of this name.

    Raises FileNotFoundError, which lists the names of the shipped experiments, if there is neither.
    """
    path, known = Path(name), shipped()
    if path.is_file():
        return path
    by_name = name.removesuffix(".py").removeprefix("experiments/")
    if by_name in known:
        return known[by_name]
    raise FileNotFoundError(f"there is no experiment {name!r}: give a file, or one of {', '.join(known)}")


def read(path: Path) -> ExperimentFunction:
    """Imports the file and returns its function `experiment`. Raises ValueError if there is none."""
    spec = importlib.util.spec_from_file_location(f"ddpm_jax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the types of their fields there
    spec.loader.exec_module(module)
    if not callable(getattr(module, "experiment", None)):
        raise ValueError(f"{path} defines no function experiment(*, ...) -> Experiment")
    return module.experiment


def defaults(function: ExperimentFunction) -> dict[str, Any]:
    """The knobs of an experiment with their default values."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def headline(path: Path) -> str:
    """The first line of the file's docstring, without running the file; empty if it has none."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
