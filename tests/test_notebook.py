"""The notebook is valid, short and free of paths, uses names that exist, and runs."""

import ast
import importlib
import json
import re
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "docs" / "ddpm_in_jax.ipynb"
MOST_BYTES, MOST_LINES = 500_000, 25
PATHS = re.compile(r"(?<![\w:/])/(home|opt|private|root|tmp|Users|usr|var|work)/|[A-Z]:\\\\")


@cache
def notebook() -> dict:
    return json.loads(FILE.read_text())


def code() -> list[str]:
    """The code cells as Python: a line that starts with % is one of IPython."""
    cells = ["".join(cell["source"]) for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    return [re.sub(r"^( *)%.*$", r"\1pass", cell, flags=re.MULTILINE) for cell in cells]


def texts(cell: dict) -> str:
    """All that a cell has printed, pictures aside."""
    return json.dumps([output.get("text", output.get("data", {}).get("text/plain")) for output in cell["outputs"]])


def printed(cells: list[dict]) -> str:
    return "".join(texts(cell) for cell in cells if cell["cell_type"] == "code")


def test_the_format_is_that_of_notebooks():
    assert notebook()["nbformat"] == 4 and FILE.stat().st_size < MOST_BYTES
    names = [cell["id"] for cell in notebook()["cells"]]
    assert len(set(names)) == len(names)
    for cell in notebook()["cells"]:
        assert {"cell_type", "metadata", "source"} <= set(cell) and cell["cell_type"] in ("code", "markdown")
        assert cell["cell_type"] == "markdown" or {"execution_count", "outputs"} <= set(cell)


def test_fifteen_short_cells_each_follow_a_text_with_their_number():
    kinds = [cell["cell_type"] for cell in notebook()["cells"]]
    assert kinds == ["markdown", *["markdown", "code"] * 15, "markdown"]
    heads = ["".join(cell["source"]) for cell in notebook()["cells"][1:-1:2]]
    assert all(head.startswith(f"**{number}. ") for number, head in enumerate(heads, 1))
    assert max(len(cell.splitlines()) for cell in code()) <= MOST_LINES


def test_it_is_stored_as_executed_once_in_order_without_errors_or_paths():
    cells = [cell for cell in notebook()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, 16))
    assert {output["output_type"] for cell in cells for output in cell["outputs"]} <= {"stream", "display_data"}
    assert not PATHS.search(printed(cells)) and not PATHS.search("".join(code()))


def member(package: ModuleType, name: str) -> Any:
    return getattr(package, name) if hasattr(package, name) else importlib.import_module(f"{package.__name__}.{name}")


def imports(tree: ast.Module) -> dict[str, ModuleType]:
    """The modules of the library that the code imports, by their names in it. Raises ImportError for a wrong name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ddpm_jax"):
            package = importlib.import_module(str(node.module))
            found |= {alias.name: member(package, alias.name) for alias in node.names}
    return {name: value for name, value in found.items() if isinstance(value, ModuleType)}


def test_its_code_uses_names_that_exist():
    tree = ast.parse("\n".join(code()))
    modules = imports(tree)
    assert {"gaussian", "guidance", "losses", "samplers"} <= set(modules)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)


@pytest.mark.slow
def test_it_runs_and_its_statements_hold(monkeypatch, tmp_path):
    """The bound is below that of a uniform distribution, and DPM-Solver++ is closer to the solution than DDIM."""
    nbclient = pytest.importorskip("nbclient", reason="the extra [docs] is not installed")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("XLA_FLAGS", "")  # those of the tests are slow in training
    run = nbformat.read(FILE, as_version=4)
    nbclient.NotebookClient(run, timeout=3600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = printed(run.cells)
    assert float(re.search(r"bits per pixel: ([\d.]+)", text)[1]) < 4.09
    ddim, solver = map(float, re.findall(r"200 steps of DDIM ([\d.]+)", text))
    assert solver < ddim
