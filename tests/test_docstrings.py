"""Every public name is documented: what it is, the shapes of its arrays, and for a method of diffusion its source."""

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

ROOMS = ("diffusion", "networks", "data", "training", "metrics", "interop")
PACKAGES = ("ddpm_jax", *(f"ddpm_jax.{room}" for room in ROOMS))
UNSHAPED = {"Array", "ArrayLike", "ndarray"}
SHAPED = {"Bool", "Float", "Int", "Key", "Num", "Shaped", "UInt8"}
"""The annotations of jaxtyping: they contain a shape."""
SHAPE = re.compile(
    r"\[[^\]`|]*\b(batch|channels|classes|count|examples|frames|height|num|rows|time|visits|T|n|d|2)\b[^\]`|]*\]"
    r"|\b(scalars?|numbers?|element by element|bit by bit|for each example|(of one|this|shapes?) (shape|of)|vector)\b"
)
METHODS = {"Kernel", "Network", "Parameterization", "Sampler"}
SOURCE = re.compile(r"\b20\d\d[a-d]?\b|\bdiffusers\b")


@cache
def public() -> dict[str, tuple[ModuleType, Any]]:
    """The module and the object of each public name: the exports of a package, and the names of exported modules."""
    found: dict[str, tuple[ModuleType, Any]] = {}

    def add(module: ModuleType) -> None:
        exported = getattr(module, "__all__", None)
        for name in exported or [name for name in vars(module) if not name.startswith("_")]:
            value = getattr(module, name)
            if inspect.ismodule(value) and exported:
                add(value)
            elif exported or getattr(value, "__module__", None) == module.__name__:
                found[f"{module.__name__}.{name}"] = module, value

    for package in PACKAGES:
        add(importlib.import_module(package))
    return found


def ours(value: Any) -> bool:
    return getattr(value, "__module__", "").startswith("ddpm_jax")


def functions() -> Iterator[tuple[str, Callable]]:
    """Public functions, and the public methods and properties of public classes."""
    for name, (_, value) in public().items():
        if inspect.isfunction(value):
            yield name, value
        elif inspect.isclass(value) and ours(value):
            for method, member in vars(value).items():
                function = member.fget if isinstance(member, property) else member
                written = inspect.isfunction(function) and ours(function)
                if written and (method == "__call__" or not method.startswith("_")):
                    yield f"{name}.{method}", function


def node_of(function: Callable) -> ast.FunctionDef | None:
    """The definition of a function in its file; None for one that `dataclass` or `lambda` made."""
    try:
        node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    except (OSError, SyntaxError):
        return None
    return node if isinstance(node, ast.FunctionDef) else None


def is_unshaped(annotation: ast.AST | None) -> bool:
    """Whether an annotation has an array without its shape. What a function argument returns is documented by type."""
    if isinstance(annotation, ast.Subscript):
        head = ast.unparse(annotation.value)
        return head not in SHAPED | {"Callable"} and is_unshaped(annotation.slice)
    if isinstance(annotation, ast.Name | ast.Attribute):
        return ast.unparse(annotation).split(".")[-1] in UNSHAPED
    return any(is_unshaped(child) for child in ast.iter_child_nodes(annotation)) if annotation else False


def conventions(function: Callable) -> set[str]:
    """The names whose shapes the docstring of the function's room states, each in a list item that begins with them."""
    room = importlib.import_module(".".join(function.__module__.split(".")[:2]))
    heads = re.findall(r"^- ((?:`\w+`(?:, )?)+):", inspect.getdoc(room) or "", re.MULTILINE)
    return set(re.findall(r"\w+", " ".join(heads)))


def without_shape(function: Callable) -> list[str]:
    """The arrays of a function whose shape neither an annotation nor a convention states; "return" for its value."""
    node = node_of(function)
    if node is None:
        return []
    args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [arg.arg for arg in args if is_unshaped(arg.annotation) and arg.arg not in conventions(function)]
    return names + ["return"] * is_unshaped(node.returns)


def is_documented(value: Any, name: str, module: ModuleType) -> bool:
    """Whether a class or function has a docstring of its own, or the assignment of another value has one below it."""
    if inspect.isfunction(value) or (inspect.isclass(value) and ours(value)):
        made = f"{value.__name__}("  # how the docstrings that `dataclass` and `NamedTuple` make begin
        return bool(value.__doc__) and not value.__doc__.startswith(made)
    return any(name in documented(each) for each in (module, *submodules(module)))


def submodules(module: ModuleType) -> list[ModuleType]:
    """The modules from which a package imports names."""
    names = {node.module for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ImportFrom)}
    return [importlib.import_module(name) for name in names if name and name.startswith("ddpm_jax.")]


@cache
def documented(module: ModuleType) -> set[str]:
    """The values of a module that have a string below their assignment."""
    body = ast.parse(inspect.getsource(module)).body
    assigned = [(node, after) for node, after in pairwise(body) if isinstance(after, ast.Expr)]
    targets = {ast.Assign: lambda node: node.targets[0], ast.AnnAssign: lambda node: node.target}
    return {ast.unparse(targets[type(node)](node)) for node, _ in assigned if type(node) in targets}


def test_public_names_have_docstrings():
    missing = [
        name
        for name, (module, value) in public().items()
        if not name.endswith(".__version__") and not is_documented(value, name.rpartition(".")[2], module)
    ]
    missing += [name for name, function in functions() if not function.__doc__]
    assert missing == []


@pytest.mark.parametrize("room", ROOMS)
def test_functions_of_arrays_state_their_shapes(room):
    """By a jaxtyping annotation, by a convention of the room, or in the docstring."""
    inside = [(name, function) for name, function in functions() if f".{room}." in f"{function.__module__}."]
    silent = {name: without_shape(function) for name, function in inside if not SHAPE.search(function.__doc__ or "")}
    assert {name: arrays for name, arrays in silent.items() if arrays} == {}


def test_methods_of_diffusion_name_their_source():
    """The year of a paper, or the library that has the method."""
    inside = [(name, value) for name, (_, value) in public().items() if ".diffusion." in name]
    methods = [(name, value) for name, value in inside if inspect.isfunction(value) and returned(value) in METHODS]
    assert len(methods) > 20
    assert [name for name, function in methods if not SOURCE.search(function.__doc__ or "")] == []


def returned(function: Callable) -> str:
    node = node_of(function)
    return ast.unparse(node.returns) if node and node.returns else ""
