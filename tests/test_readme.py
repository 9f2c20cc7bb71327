"""README.md is true: its Python runs, its commands are understood, its paths exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from ddpm_jax.commands import main

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def commands() -> list[list[str]]:
    """Each `ddpm-jax ...` of the shell blocks, as its arguments."""
    lines = [line for language, text in BLOCKS if language == "sh" for line in re.split(r"\n|&&", text)]
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("ddpm-jax ")]


def test_the_python_blocks_run_on_a_run_of_the_digits(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "runs/digits")
    blocks = [text for language, text in BLOCKS if language == "python"]
    assert blocks
    for text in blocks:
        exec(compile(text, "README.md", "exec"), {})


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_are_understood(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert all(word in printed for word in command if word.startswith("--"))


def test_every_language_of_a_block_is_tried():
    assert {language for language, _ in BLOCKS} == {"sh", "python"}


ROWS = re.findall(r"^\| `(ho_2020/[^`]*)` \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("run", ROWS)
def test_its_table_of_the_papers_runs_is_what_the_ledger_says(run, capsys):
    main(["verify", *run.split(), "--markdown"])
    assert capsys.readouterr().out.strip() in (ROOT / "README.md").read_text()


def test_the_files_it_names_are_there():
    named = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert named and all((ROOT / name).exists() for name in named)
