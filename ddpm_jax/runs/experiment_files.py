"""Experiment files: functions that find one by path or shipped name, import it, and describe it."""

import ast
import hashlib
import importlib.machinery
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
SIGNATURES = {"experiment": "experiment(*, ...) -> Experiment", "features": "features(images) -> float32 [num, dims]"}
"""The functions that files of a user define."""


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


def read(path: Path, name: str = "experiment") -> Callable[..., Any]:
    """Imports the file and returns its function of this name. The file may import modules that lie beside it.

    Raises ValueError, with the file and the line, for a file that cannot be imported or lacks this function.
    """
    spec = importlib.util.spec_from_file_location(f"ddpm_jax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: give one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the types of their fields there
    for known in [known for known in sys.modules if known.partition(".")[0] in _beside]:
        del sys.modules[known]  # a module of this name beside another file is another module
    with _located_errors(path, ()), _importing_beside(path):
        for each in modules(path):  # all of them here, also those that functions import when they are called
            importlib.import_module(each.stem)
            _beside.add(each.stem)
        spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        raise ValueError(f"{path} defines no function {SIGNATURES[name]}")
    return getattr(module, name)


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
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


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
        frames, folder = traceback.extract_tb(error.__traceback__), path.resolve().parent
        own = [frame for frame in frames if _is_below(Path(frame.filename), folder)]
        where = f"{own[-1].filename}:{own[-1].lineno}" if own else str(path)
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def _is_below(file: Path, folder: Path) -> bool:
    """Whether the file is one of the user's, in the folder, and not in a virtual environment there."""
    return file.is_absolute() and file.is_relative_to(folder) and "site-packages" not in file.parts


def modules(path: Path) -> list[Path]:
    """The modules and packages beside the file which it imports, directly or through one another, sorted."""
    found, pending, folder = set(), [path], path.resolve().parent
    while pending:
        new = {module for name in _imported(pending.pop()) if (module := _beside_module(folder, name))} - found
        new -= {path.resolve()}
        found |= new
        pending += [file for module in new for file in python_files(module)]
    return sorted(path.parent / module.name for module in found)


def _beside_module(folder: Path, name: str) -> Path | None:
    """The file or folder of the module of this name, if an import with `folder` first in the path finds it there."""
    spec = importlib.machinery.PathFinder.find_spec(name, [str(folder), *sys.path])
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return Path(spec.origin) if spec.origin and Path(spec.origin).parent == folder else None
    package = Path(next(iter(spec.submodule_search_locations)))
    return package if package.parent == folder and python_files(package) else None


def python_files(module: Path) -> list[Path]:
    """The Python files of a module, or of a package with its subfolders, sorted."""
    return sorted(module.rglob("*.py")) if module.is_dir() else [module]


def _imported(path: Path) -> set[str]:
    """The first parts of the names that the file imports, without Python's own and this library."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"ddpm_jax"}


def digest(path: Path) -> str:
    """SHA-256 of the file and of its `modules`, with their names, in hexadecimal."""
    found = hashlib.sha256(path.read_bytes())
    for module in modules(path):
        for file in python_files(module):
            found.update(f"{file.relative_to(path.parent)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def defaults(function: ExperimentFunction) -> dict[str, Any]:
    """The knobs of an experiment with their default values."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def headline(path: Path) -> str:
    """The first line of the file's docstring, without running the file; empty if it has none."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
