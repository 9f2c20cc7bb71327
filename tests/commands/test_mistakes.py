"""Mistakes on the command line: one line that names the value and the way out, and exit status 2."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from mistakes import fails

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--widht", "8"], "--width"),
        (["--width", "6"], "6 channels"),
        (["--width", "0"], "width must be at least 1"),
        (["--dropout", "2"], "dropout in [0, 1), got"),
        (["--batch-size", "0"], "batch_size must be at least 1, got 0"),
        (["--num-steps", "0"], "num_steps must be at least 1, got 0"),
        (["--seed", "soon"], "soon"),
        (["--seed", "-1"], "got -1"),
        (["--seed", "1" + "0" * 30], "2^32"),
        (["--dropout", "0.2"], "--dropout 0.1, not 0.2"),
        (["--num-steps", "10"], "--num-steps 10: the run in"),
    ],
)
def test_mistakes_in_knobs(finished, capsys, options, message):
    workdir = finished if options[1] in ("0.2", "10") else finished.parent / "never"
    assert message in fails(capsys, "train", str(TINY), "--workdir", str(workdir), *options)
    assert not (finished.parent / "never").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--steps", "51"], "--steps must be between 1 and 50, got 51"),
        (["--steps", "0"], "--steps must be between 1 and 50, got 0"),
        (["--seed", "x.y"], "x.y"),
        (["--seed", "-1"], "got -1"),
        (["--sede", "1"], "did you mean --seed?"),
        (["--eta", "2"], "eta must lie in [0, 1], got 2"),
        (["--label", "3"], "not class-conditional"),
        (["--out", "picture.gif"], ".png"),
        (["--out", "/dev/null/x.png"], "/dev/null"),
    ],
)
def test_mistakes_in_sampling(finished, capsys, options, message):
    assert message in fails(capsys, "sample", str(finished), *options)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--times", "50"], "--times must be between 1 and 49, got 50"),
        (["--seed", "-1"], "got -1"),
        (["--metrics", "bpd", "nll", "--tolerance", "2"], "--tolerance must lie between 0 and 1, got 2"),
        (["--metrics", "bpd", "nll", "--steps", "5"], "--metrics nll measures all T steps: leave out --steps"),
    ],
)
def test_mistakes_in_measuring(finished, capsys, options, message):
    assert message in fails(capsys, "evaluate", str(finished), *options)


def test_a_mistake_on_a_terminal_has_one_line_as_in_a_pipe(tmp_path):
    """tyro draws boxes in colour on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ddpm_jax", "train", str(TINY), "--workdir", str(tmp_path / "x"), "--seed", "soon"]
    assert subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs).returncode == 2
    printed = os.read(ours, 10_000).decode()
    assert printed.count("\n") == 1 and "soon" in printed and "\x1b" not in printed and "│" not in printed


def test_mistakes_in_names(finished, tmp_path, capsys):
    assert "digits" in fails(capsys, "train", "digts.py", "--workdir", str(tmp_path / "x"))
    assert "is not a workdir" in fails(capsys, "sample", str(tmp_path / "nowhere"))
    assert "is not a workdir" in fails(capsys, "evaluate", str(tmp_path))
    assert "did you mean sample" in fails(capsys, "smaple", str(tmp_path))
    assert "another experiment" in fails(capsys, "train", "digits", "--workdir", str(finished))
    (tmp_path / "notes.txt").write_text("mine")
    assert "not empty" in fails(capsys, "train", str(TINY), "--workdir", str(tmp_path))
    assert "/dev/null" in fails(capsys, "train", str(TINY), "--workdir", "/dev/null/run")
