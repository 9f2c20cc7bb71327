"""Experiment files: found by path or by the name of a shipped one, imported, and called with knobs."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddpm_jax.experiment import Experiment

Recipe = Callable[..., Experiment]
"""The function `experiment` of an experiment file; its keyword arguments are its knobs."""


def shipped() -> dict[str, Path]:
    """The experiments that come with the library, by name: ``digits``, ``ho_2020/cifar10``, ..."""
    package = Path(__file__).parent
    # in an installed wheel they lie inside the package, in a source tree beside it
    inside = package / "experiments"
    folder = inside if inside.is_dir() else package.parent / "experiments"
    files = sorted(path for path in folder.rglob("*.py") if not path.name.startswith("_"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find(name: str) -> Path:
    """The experiment file at this path, or the shipped one of this name.

    Raises FileNotFoundError naming what is there.
    """
    path, known = Path(name), shipped()
    if path.is_file():
        return path
    by_name = name.removesuffix(".py").removeprefix("experiments/")
    if by_name in known:
        return known[by_name]
    raise FileNotFoundError(f"there is no experiment {name!r}: give a file, or one of {', '.join(known)}")


def read(path: Path) -> Recipe:
    """The file's function `experiment`. Raises ValueError if it has none."""
    spec = importlib.util.spec_from_file_location(f"ddpm_jax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    if not callable(getattr(module, "experiment", None)):
        raise ValueError(f"{path} defines no function experiment(*, ...) -> Experiment")
    return module.experiment


def defaults(recipe: Recipe) -> dict[str, Any]:
    """Its knobs, each as it is when none is given."""
    return {name: parameter.default for name, parameter in inspect.signature(recipe).parameters.items()}


def headline(path: Path) -> str:
    """The first line of the file's docstring."""
    module = read(path).__globals__
    return (inspect.cleandoc(module["__doc__"] or "")).split("\n")[0]
