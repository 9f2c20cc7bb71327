"""Experiment files: what they may import, and what their errors look like."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from mistakes import fails

from ddpm_jax.commands import main
from ddpm_jax.runs import experiment_files, workdir

SETTINGS = "WIDTH = {width}\n"
FILE = """
from tiny_parts.process import process
from settings import WIDTH
from ddpm_jax.experiment import Experiment, Every
from ddpm_jax.data import digits
from ddpm_jax.diffusion import parameterizations
from ddpm_jax.networks import UNet
import optax

def experiment(*, num_steps: int = 2) -> Experiment:
    network = UNet(width=WIDTH, multipliers=(1,), num_blocks=1, attention=(), groups=4)
    return Experiment(
        data=digits(), process=process, parameterization=parameterizations.eps(process), network=network,
        optimizer=optax.adam(1e-3), batch_size=8, num_steps=num_steps, ema_decay=0.0, preview_eta=0.0,
        every=Every(log=1, sample=0, save=1),
    )
"""
PROCESS = """
from .numbers import T
from ddpm_jax.diffusion import gaussian, schedules

process = gaussian.process(schedules.linear(T, 0.01, 0.5), gaussian.discretized(17))
"""


def write(folder, width: int = 4):
    """An experiment file that imports a module and a package beside it."""
    (folder / "tiny_parts").mkdir(parents=True)
    (folder / "tiny_parts" / "__init__.py").touch()
    (folder / "tiny_parts" / "process.py").write_text(PROCESS)
    (folder / "tiny_parts" / "numbers.py").write_text("T = 10\n")
    (folder / "settings.py").write_text(SETTINGS.format(width=width))
    (folder / "mine.py").write_text(FILE)
    (folder / "unrelated.py").write_text("1 / 0")
    return folder / "mine.py"


def build(file):
    return experiment_files.build(experiment_files.read(file), {})


def test_modules_beside_the_file_go_into_the_workdir_and_are_used_there(tmp_path, capsys):
    file = write(tmp_path / "code")
    workdir.prepare(tmp_path / "run", file, {"num_steps": 2})
    kept = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"experiment.py", "settings.py", "tiny_parts"} <= kept and "unrelated.py" not in kept
    for path in (tmp_path / "code").rglob("*.py"):
        path.unlink()  # as on another machine
    assert workdir.read(tmp_path / "run").network.width == 4


def test_two_files_may_have_modules_of_one_name(tmp_path):
    four, eight = write(tmp_path / "a", 4), write(tmp_path / "b", 8)
    assert [build(file).network.width for file in (four, eight, four)] == [4, 8, 4]


def test_a_changed_module_makes_another_experiment(tmp_path, capsys):
    file = write(tmp_path / "code")
    workdir.prepare(tmp_path / "run", file, {"num_steps": 2})
    before = experiment_files.digest(file)
    assert experiment_files.digest(tmp_path / "run" / "experiment.py") == before
    (tmp_path / "code" / "tiny_parts" / "numbers.py").write_text("T = 11\n")
    assert experiment_files.digest(file) != before
    message = fails(capsys, "train", str(file), "--workdir", str(tmp_path / "run"))
    assert f"copy of {Path('tiny_parts', 'numbers.py')} differs" in message


def test_a_module_may_not_have_a_name_of_the_workdir(tmp_path, capsys):
    (tmp_path / "samples.py").touch()
    (tmp_path / "mine.py").write_text("import samples\n" + (FILE.partition("from tiny")[0]) + "def experiment(): pass")
    with pytest.raises(ValueError, match=r"imports samples\.py, a name that a workdir uses itself"):
        workdir.prepare(tmp_path / "run", tmp_path / "mine.py", {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ndef experiment(:\n", "mine.py:2: SyntaxError: invalid syntax"),
        ("\n\nimport no_such_module\n", "mine.py:3: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import broken", "broken.py:2: ZeroDivisionError: division by zero"),
        ("def experiment():\n    return undefined\n", "mine.py:2: NameError: name 'undefined' is not defined"),
        ("def experiment():\n    return {}\n", "mine.py: experiment() returns dict: let it return an Experiment"),
        ("def experiment():\n    raise ValueError('width must be even')\n", "width must be even"),
        ("", "defines no function experiment"),
    ],
)
def test_an_error_in_the_file_has_its_line(tmp_path, capsys, monkeypatch, text, message):
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "broken.py").write_text("\n1 / 0\n")
    for command in (
        ["train", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "run")],
        ["plan", str(tmp_path / "mine.py")],
    ):
        assert message in fails(capsys, *command)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("DDPM_JAX_TRACEBACK", "1")
    with pytest.raises(ValueError, match=re.escape(message)):
        main(["plan", str(tmp_path / "mine.py")])


def test_a_relative_path_has_the_line_too(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text("\nimport no_such_module\n")
    monkeypatch.chdir(tmp_path)
    assert f"{tmp_path / 'mine.py'}:2: ModuleNotFoundError" in fails(capsys, "plan", "mine.py")


def test_functions_may_import_when_they_are_called(tmp_path):
    (tmp_path / "later.py").write_text("VALUE = 3\n")
    (tmp_path / "mine.py").write_text(
        "def experiment():\n    pass\ndef late():\n    from later import VALUE\n    return VALUE"
    )
    late = experiment_files.read(tmp_path / "mine.py").__globals__["late"]
    assert late() == 3


def test_only_what_python_would_import_from_the_folder_is_copied(tmp_path):
    """Not a clone of optax beside the file, whose package lies one folder deeper, nor pictures."""
    for name in ("optax/optax/__init__.py", "numpy/data.txt", "helpers/deep/module.py", "jax.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine.py").write_text("import optax, numpy, jax, json, ddpm_jax\nimport helpers.deep.module")
    assert experiment_files.modules(tmp_path / "mine.py") == [tmp_path / "helpers"]


def test_nothing_stays_on_the_path(tmp_path):
    build(write(tmp_path / "code"))
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("unrelated")
    assert str(tmp_path / "code") not in sys.path
