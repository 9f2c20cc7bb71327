"""README.md and docs/ are true: their Python runs, their commands are understood, and what they name exists."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.commands import main
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.train import check

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_LINES = 180


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def code(page: Path) -> list[str]:
    """Shell blocks, with continued lines joined, and code within the text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    shell = [block.replace("\\\n", " ") for block in blocks(page, "sh")]
    return shell + [each.replace("\\|", "|") for each in re.findall(r"`([^`]+)`", text)]


def calls(start: str) -> list[str]:
    """The calls in the pages that begin with the pattern `start`, each to the end of its arguments."""
    pattern = rf"(?:^|[\s'])({start}[^\n&;']*)"
    found = {call.strip() for page in PAGES for text in code(page) for call in re.findall(pattern, text)}
    assert found
    return sorted(found)


@pytest.fixture
def place(finished, tmp_path, monkeypatch):
    """The folder of a reader, with a finished run in runs/digits, a converted one, and the experiment of the docs."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "runs/digits", ignore=shutil.ignore_patterns("evaluation_*"))  # one that ends meanwhile
    Path("runs/cifar10").mkdir()
    shutil.copyfile(ROOT / "experiments" / "imported.py", "runs/cifar10/experiment.py")  # as `convert` does
    (mine,) = blocks(ROOT / "docs" / "own_pictures.md", "python")
    Path("mine.py").write_text(mine)
    return tmp_path


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_python_blocks_run(page, place):
    """In a process of their own, since some of them configure it. Of a training loop, two steps are run."""
    for block in blocks(page, "python"):
        block = re.sub(r"(?<=in range\()\d{3,}(?=\):)", "2", block)
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_every_block_is_in_a_language_that_is_tested():
    for page in PAGES:
        fences = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"sh", "python"} and set(fences[1::2]) <= {""}, page


def without_placeholders(call: str) -> list[list[str]]:
    """The arguments of a call once for each choice written as a|b, with an experiment for EXPERIMENT."""
    words = shlex.split(call.translate(str.maketrans("[]", "  ")).replace("--knob value", "").replace("...", ""))[1:]
    words = ["digits" if word == "EXPERIMENT" else word for word in words]
    most = max((word.count("|") for word in words), default=0)
    return [[(word.split("|") * (most + 1))[n] for word in words] for n in range(most + 1)]


@pytest.mark.parametrize("call", calls("ddpm-jax "))
def test_the_commands_are_understood(call, place, capsys):
    """Their help lists each option, and each of the values of an option that has a choice."""
    for words in without_placeholders(call):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--help"])
        printed = capsys.readouterr().out
        assert not stop.value.code
        assert [word for word in words if word.startswith("--") and word not in printed] == []
    alternatives = [value for word in call.split() if "|" in word for value in word.strip("[]").split("|")]
    assert [value for value in alternatives if value not in printed] == []


@pytest.mark.parametrize("call", calls("python tests/"))
def test_the_scripts_exist_and_have_the_options(call):
    """Each option is a parameter of the script's `main`, or an option of its parser."""
    _, script, *words = call.split()
    tree = ast.parse((ROOT / script).read_text())
    mains = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    known = {f"--{arg.arg.replace('_', '-')}" for node in mains for arg in node.args.args}
    known |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    options = {word for word in words if word.startswith("--")}
    assert {option for option in options if option not in known and option.replace("--no-", "--") not in known} == set()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=name)
def test_the_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [
        path for path in re.findall(r"`((?:tests|experiments|docs|\.ci)/[\w./]*)`", text) if not (ROOT / path).exists()
    ]
    assert missing == []


def test_the_experiment_for_own_pictures_can_be_trained(place):
    """On pictures of any size: `check` evaluates the network's shapes and the first picture, as `train` does first."""
    Path("pictures").mkdir()
    for number in range(30):
        Image.fromarray(np.full((40, 50 + number, 3), number, np.uint8)).save(f"pictures/{number}.png")
    experiment = experiment_files.read(Path("mine.py"))(path="pictures", size=16, width=32, batch_size=8)
    check(experiment)
    assert {split: len(experiment.data.open(split)) for split in ("train", "test")}["train"] in range(20, 30)


def test_the_versions_of_the_changelog_fall_to_the_first():
    from ddpm_jax import __version__

    found = re.findall(r"^## (\d+)\.(\d+)\.(\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    numbers = [tuple(map(int, each)) for each in found]
    assert numbers and ".".join(found[0]) == __version__ and all(new > old for new, old in pairwise(numbers))
