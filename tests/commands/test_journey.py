"""The journey of a run, through the command line as a user types it: train, stop, go on, sample, measure."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.runs.workdir import read

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def stop_at(process: subprocess.Popen, step: int, number: int) -> int:
    """Sends the signal once the run has logged `step`, and returns the exit status."""
    for line in process.stdout:
        if line.startswith(f"step {step}/"):
            break
    process.send_signal(number)
    process.communicate()
    return process.returncode


def parameters(workdir: Path):
    run = ddpm_jax.load(workdir)
    return run.step, [np.asarray(leaf) for leaf in jax.tree.leaves(run.params)]


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same_run(one: Path, other: Path, cut: int = 0) -> None:
    """The same parameters; the same log, but for the `cut` rows whose average a stop has shortened."""
    (step, leaves), (other_step, others) = parameters(one), parameters(other)
    assert step == other_step == 12
    assert all(np.array_equal(a, b) for a, b in zip(leaves, others, strict=True))
    differing = [a != b for a, b in zip(losses(one), losses(other), strict=True)]
    assert sum(differing) <= cut


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_gone_on_is_never_stopped(finished, train, tmp_path, number, status):
    """Ctrl-C and SIGTERM save where they stop; a kill goes back to the last checkpoint; all end alike."""
    assert stop_at(train(tmp_path / "run"), 6, number) == status
    again = train(tmp_path / "run")
    printed, _ = again.communicate()
    assert again.returncode == 0 and "resuming" in printed
    same_run(finished, tmp_path / "run", cut=0 if number == signal.SIGKILL else 1)


def test_the_workdir_holds_what_it_should(finished):
    assert (finished / "experiment.py").read_text() == TINY.read_text()
    record = json.loads((finished / "experiment.json").read_text())
    assert record["knobs"]["width"] == 8 and record["versions"]["jax"]
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert Image.open(finished / "samples" / "step_00000012.png").size[0] > 64
    assert json.loads((finished / "evaluation.json").read_text())[0]["step"] == 12
    assert list((finished / "events").iterdir())


def contents(workdir: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_the_same_command_on_a_finished_run_changes_nothing(finished, train):
    """Not one byte: nor does anything that it writes again hold the time of day."""
    before = contents(finished)
    assert train(finished).wait() == 0
    assert before == contents(finished)


def test_evaluation_adds_up_and_is_written(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    options = ["--num", "16", "--batch-size", "8", "--json", str(tmp_path / "bpd.json")]
    assert main(["evaluate", str(run), *options]) == 0
    assert "total" in capsys.readouterr().out
    measured = json.loads((tmp_path / "bpd.json").read_text())["bpd"]
    parts = sum(measured[part][0] for part in ("prior", "chain", "decoder"))
    assert measured["total"][0] == pytest.approx(parts)
    assert len(measured["rate"]) == len(measured["distortion"]) == 50
    assert np.all(np.diff(measured["rate"]) >= 0)
    assert measured["rate"][-1] == pytest.approx(measured["prior"][0] + measured["chain"][0])
    assert measured["distortion"][-1] < measured["distortion"][0]
    assert Image.open(run / "rate_distortion.png").size[0] > 500


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(finished, train, tmp_path):
    workdir = tmp_path / "run"
    assert stop_at(train(workdir), 10, signal.SIGTERM) == 128 + signal.SIGTERM
    newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    for path in (workdir / "checkpoints" / str(newest)).rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)
    again = train(workdir)
    _, warned = again.communicate()
    assert again.returncode == 0 and f"checkpoint {newest} cannot be read" in warned
    same_run(finished, workdir, cut=1)


def test_plan_counts_what_it_can_be_held_to(tmp_path):
    assert main(["plan", str(TINY), "--json", str(tmp_path / "plan.json")]) == 0
    costs = json.loads((tmp_path / "plan.json").read_text())
    assert costs["parameter_bytes"] == costs["ema_bytes"] == 4 * costs["parameters"]
    assert costs["optimizer_bytes"] >= 8 * costs["parameters"]  # Adam's two moments
    assert costs["flops"] == 12 * costs["flops_per_step"] > 0


def test_the_front_door_is_a_pure_function_of_keys(finished):
    run = ddpm_jax.load(finished)
    draw = run.sampler(steps=10, eta=0.0)
    images = np.asarray(draw(ddpm_jax.keys(seed=0, num=4)))
    assert images.shape == (4, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, draw(ddpm_jax.keys(seed=0, num=4)))
    shifted = np.asarray(draw(ddpm_jax.keys(seed=0, num=4, start=2)))
    np.testing.assert_array_equal(images[2:], shifted[:2])
    assert read(finished).process.schedule.num_steps == 50
