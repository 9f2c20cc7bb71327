"""Experiment files: functions that find one by path or shipped name, import it, and describe it."""

import ast
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Imports the file and returns its function `experiment`. The file may import modules that lie beside it.

    Raises ValueError, with the file and the line, for a file that cannot be imported or lacks this function.
    """
    spec = importlib.util.spec_from_file_location(f"ddpm_jax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the types of their fields there
    for name in _beside:  # a module of this name beside another file is another module
        sys.modules.pop(name, None)
    with _located_errors(path, ()), _importing_beside(path):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "experiment", None)):
        raise ValueError(f"{path} defines no function experiment(*, ...) -> Experiment")
    return module.experiment


def build(function: ExperimentFunction, knobs: dict[str, Any]) -> Experiment:
    """Calls the function `experiment` of an experiment file.

    Raises ValueError with the file and the line if it raises another exception than ValueError or OSError, or returns
    something else than an Experiment.
    """
    path = Path(inspect.getfile(function))
    with _located_errors(path, (ValueError, OSError)), _importing_beside(path):
        experiment = function(**knobs)
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path}: experiment() returns {type(experiment).__name__}: let it return an Experiment")
    return experiment


_beside: set[str] = set()
"""The names of the modules that were imported from the folder of an experiment file."""


@contextmanager
def _importing_beside(path: Path) -> Iterator[None]:
    folder, before = str(path.resolve().parent), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        _beside.update(name for name, each in new.items() if (getattr(each, "__file__", "") or "").startswith(folder))


@contextmanager
def _located_errors(path: Path, let_pass: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raises an exception as ValueError with the file and the line: the last one that lies in the folder of `path`."""
    try:
        yield
    except let_pass:
        raise
    except SyntaxError as error:
        raise ValueError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(path.parent)]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def modules(path: Path) -> list[Path]:
    """The modules and packages beside the file which it imports, directly or through one another, sorted."""
    found, pending = set(), [path]
    while pending:
        imported = _imported(pending.pop())
        candidates = {path.parent / each for name in imported for each in (f"{name}.py", name)}
        new = {each for each in candidates - found - {path} if each.is_file() or any(each.glob("*.py"))}
        found |= new
        pending += [file for each in new for file in (each.rglob("*.py") if each.is_dir() else [each])]
    return sorted(found)


def _imported(path: Path) -> set[str]:
    """The first parts of the names that the file imports, without Python's own and this library."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ddpm_jax"}


def digest(path: Path) -> str:
    """SHA-256 of the file and of its `modules`, with their names, in hexadecimal."""
    found = hashlib.sha256(path.read_bytes())
    for module in modules(path):
        for file in sorted(module.rglob("*.py")) if module.is_dir() else [module]:
            found.update(f"{file.relative_to(path.parent)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def defaults(function: ExperimentFunction) -> dict[str, Any]:
    """The knobs of an experiment with their default values."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def headline(path: Path) -> str:
    """The first line of the file's docstring, without running the file; empty if it has none."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
