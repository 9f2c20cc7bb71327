"""Exit statuses: 0 finished, 2 a mistake of the user, 1 anything else; and one line on what can be explained."""

import types

import pytest

from ddpm_jax import commands
from ddpm_jax.commands import main
from ddpm_jax.commands.train import _finish
from ddpm_jax.runs import quick as quick_estimate
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.training import Diverged


def command_raising(monkeypatch, error: BaseException) -> None:
    def run(args, own_process):
        raise error

    monkeypatch.setattr(commands, "_module", lambda name: types.SimpleNamespace(run=run))


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("--num must be at least 1, got 0"), 2, "--num must be at least 1, got 0"),
        (FileNotFoundError("runs/x is not a workdir"), 2, "runs/x is not a workdir"),
        (Diverged("the loss is nan at step 7"), 1, "the loss is nan at step 7"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), 1, "a smaller --batch-size"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied"),
        (MemoryError(), 1, "a smaller --batch-size"),
        (OSError(28, "No space left on device"), 1, "checkpoints saved before are kept"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_can_be_explained_is_one_line(monkeypatch, capsys, error, status, line):
    command_raising(monkeypatch, error)
    assert main(["train"]) == status
    printed = capsys.readouterr().err
    assert line in printed and printed.count("\n") == 1


def test_a_fault_of_the_library_keeps_its_traceback(monkeypatch):
    command_raising(monkeypatch, TypeError("unexpected"))
    with pytest.raises(TypeError, match="unexpected"):
        main(["train"])


def test_a_run_that_cannot_be_measured_is_finished_nonetheless(monkeypatch, tmp_path):
    def quick(folder, step, reporter):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")

    monkeypatch.setattr(quick_estimate, "quick", quick)
    lines, reporter = [], Reporter()
    reporter.line = lines.append
    _finish(tmp_path, 12, reporter)
    assert lines == [
        "finished: 12 steps",
        "bits/dim not measured: RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes",
    ]
