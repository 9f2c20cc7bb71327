"""The rules of the house: who may import what, who prints, and how long files and functions may be."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddpm_jax"
EXPERIMENTS = PACKAGE.parent / "experiments"
ROOMS = ("data", "diffusion", "interop", "metrics", "networks", "system", "training")
HALLS = ("commands", "runs", "studies")
ALONE = ("__init__.py", "__main__.py", "experiment.py", "guides.py", "sampling.py", "figures.py")
LONGEST_FILE, LONGEST_FUNCTION, MEDIAN_FUNCTION = 300, 40, 7
SOURCES = [*PACKAGE.rglob("*.py"), *EXPERIMENTS.rglob("*.py")]


def imported(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, *packages: str) -> bool:
    return any(f"{name}.".startswith(f"ddpm_jax.{package}.") for package in packages)


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function, its docstring aside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            yield node.name, (node.end_lineno or 0) - first.lineno + 1


def test_every_folder_and_file_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*ROOMS, *HALLS, "models"}  # models are data
    assert {path.name for path in PACKAGE.glob("*.py")} == set(ALONE)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_itself(room):
    for path in (PACKAGE / room).rglob("*.py"):
        ours = {name for name in imported(path) if name.split(".")[0] == "ddpm_jax"}
        assert all(within(name, room) for name in ours), f"{path} imports {ours}"


def test_halls_do_not_import_commands_and_only_commands_import_studies_and_runs_together():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0]
        names = imported(path)
        assert room in ("commands", "__main__.py") or not any(within(name, "commands") for name in names), path
        assert room != "runs" or not any(within(name, "studies") for name in names), path
        assert room not in ("experiment.py", "guides.py", "sampling.py", "figures.py") or not any(
            within(name, *HALLS) for name in names
        ), path


def test_only_commands_print_or_know_the_command_line():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] == "commands":
            continue
        assert not {name.split(".")[0] for name in imported(path)} & {"tyro", "tqdm"}, path
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


def test_the_mathematics_imports_no_files_networks_or_training():
    allowed = {
        "diffrax",
        "jax",
        "numpy",
        "jaxtyping",
        "ddpm_jax",
        "collections",
        "dataclasses",
        "functools",
        "math",
        "typing",
    }
    for path in (PACKAGE / "diffusion").rglob("*.py"):
        assert {name.split(".")[0] for name in imported(path)} <= allowed, path


def test_requests_import_nothing_heavy():
    """So that the help of a command answers at once."""
    for path in PACKAGE.rglob("*requests.py"):
        others = {name for name in imported(path) if not name.startswith("ddpm_jax.runs.requests")}
        assert {name.split(".")[0] for name in others} <= {"dataclasses", "pathlib", "typing"}, path


def test_experiments_use_public_names_only():
    for path in EXPERIMENTS.rglob("*.py"):
        assert not [name for name in imported(path) if "._" in name], path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE.parent).as_posix())
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
    long = [pair for pair in functions(path) if pair[1] > LONGEST_FUNCTION and pair[0] != "experiment"]
    assert not long


def test_tests_are_short_too():
    for path in Path(__file__).parent.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= LONGEST_FILE, path


def test_half_of_the_functions_have_at_most_seven_lines():
    lengths = sorted(length for path in SOURCES for _, length in functions(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_FUNCTION
