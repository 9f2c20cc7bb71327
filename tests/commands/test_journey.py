"""The journey of a run, through the command line as a user types it: train, stop, go on, sample, measure."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.runs import experiment_files, workdir
from ddpm_jax.runs.train import initial_state
from ddpm_jax.runs.workdir import read
from ddpm_jax.training import checkpoints, sharding

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


@pytest.mark.parametrize("number, step", [(signal.SIGKILL, 6), (signal.SIGINT, 6)])
def test_stopped_and_gone_on_is_never_stopped(finished, train, tmp_path, number, step):
    """Ctrl-C saves where it stops; a kill between two checkpoints goes back to the first; both end alike."""
    status = stop_at(train(tmp_path / "run"), step, number)
    assert status == {signal.SIGKILL: -signal.SIGKILL, signal.SIGINT: 130}[number]
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


def sample(workdir: Path, *options: str) -> int:
    return main(["sample", str(workdir), *options])


def test_samples_are_the_same_twice_and_whatever_their_number(finished, tmp_path):
    assert sample(finished, "--num", "20", "--out", str(tmp_path / "a.npz")) == 0
    assert sample(finished, "--num", "5", "--out", str(tmp_path / "b.npz")) == 0
    many, few = (np.load(tmp_path / name)["arr_0"] for name in ("a.npz", "b.npz"))
    assert many.shape == (20, 8, 8, 1) and many.dtype == np.uint8
    np.testing.assert_array_equal(many[:5], few)
    assert not np.array_equal(many[0], many[1])


def test_a_picture_is_the_same_to_the_byte_and_never_overwritten(finished, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert sample(finished, "--num", "4", "--out", str(out)) == 0
    first = out.read_bytes()
    assert sample(finished, "--num", "4", "--out", str(tmp_path / "again.png")) == 0
    assert (tmp_path / "again.png").read_bytes() == first
    assert sample(finished, "--num", "4", "--out", str(out)) == 0
    assert "already" in capsys.readouterr().out
    assert sample(finished, "--num", "4", "--seed", "1", "--out", str(out)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == first
    assert sample(finished, "--num", "4", "--seed", "1", "--out", str(out), "--overwrite") == 0
    assert out.read_bytes() != first


def test_a_folder_of_pictures(finished, tmp_path):
    assert sample(finished, "--num", "3", "--sampler", "ddim", "--steps", "5", "--out", str(tmp_path / "images")) == 0
    pictures = sorted((tmp_path / "images").iterdir())
    assert [path.name for path in pictures] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(pictures[0]).size == (8, 8)


@pytest.mark.parametrize(
    "name, printed", [("mine", "other things"), ("mine.png", "is a folder"), ("empty.npz", "exists")]
)
def test_what_is_not_ours_is_never_replaced(finished, tmp_path, capsys, name, printed):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    (tmp_path / "mine.png").mkdir()
    (tmp_path / "empty.npz").touch()
    overwrite = [] if name == "empty.npz" else ["--overwrite"]
    assert printed in fails(capsys, "sample", str(finished), "--num", "1", "--out", str(tmp_path / name), *overwrite)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_a_run_of_many_devices_is_loaded_on_one(tmp_path):
    """This process has eight: what it saves, a process of one device loads."""
    run = tmp_path / "run"
    experiment = experiment_files.read(TINY)()
    workdir.prepare(run, TINY, {"seed": 0})
    state = initial_state(experiment, sharding.make_mesh())
    assert len(jax.tree.leaves(state.params)[0].sharding.device_set) == 8
    with checkpoints.manager(run / "checkpoints") as manager:
        checkpoints.save(manager, state)
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    script = "import sys, jax, ddpm_jax; print(jax.device_count(), ddpm_jax.load(sys.argv[1]).step)"
    done = subprocess.run([sys.executable, "-c", script, str(run)], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0"], done.stderr


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
    assert stop_at(train(workdir), 10, signal.SIGTERM) == 0
    newest = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    for path in (workdir / "checkpoints" / str(newest)).rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)
    again = train(workdir)
    _, warned = again.communicate()
    assert again.returncode == 0 and f"checkpoint {newest} cannot be read" in warned
    same_run(finished, workdir, cut=1)


def fails(capsys, *argv: str) -> str:
    """The one line that a mistake gets; exit status 2."""
    assert main(list(argv)) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "Traceback" not in printed
    return printed


@pytest.mark.parametrize(
    "options, printed",
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
        (["--num-steps", "24"], "--num-steps 12, not 24"),
    ],
)
def test_mistakes_in_knobs(finished, capsys, options, printed):
    workdir = finished if "24" in options else finished.parent / "never"
    assert printed in fails(capsys, "train", str(TINY), "--workdir", str(workdir), *options)
    assert not (finished.parent / "never").exists()


@pytest.mark.parametrize(
    "options, printed",
    [
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--steps", "51"], "--steps must be between 1 and 50, got 51"),
        (["--steps", "0"], "--steps must be between 1 and 50, got 0"),
        (["--seed", "x.y"], "x.y"),
        (["--seed", "-1"], "got -1"),
        (["--sede", "1"], "did you mean --seed?"),
        (["--eta", "2"], "eta must lie in [0, 1], got 2"),
        (["--label", "3"], "not printed the label"),
        (["--out", "picture.gif"], ".png"),
        (["--out", "/dev/null/x.png"], "/dev/null"),
    ],
)
def test_mistakes_in_sampling(finished, capsys, options, printed):
    assert printed in fails(capsys, "sample", str(finished), *options)


@pytest.mark.parametrize(
    "options, printed",
    [
        (["--num", "0"], "--num must be at least 1, got 0"),
        (["--times", "50"], "--times must be between 1 and 49, got 50"),
        (["--seed", "-1"], "got -1"),
    ],
)
def test_mistakes_in_measuring(finished, capsys, options, printed):
    assert printed in fails(capsys, "evaluate", str(finished), *options)


def test_a_mistake_is_told_on_a_terminal_as_in_a_pipe(tmp_path):
    """tyro draws boxes, in colour where it sees a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ddpm_jax", "train", str(TINY), "--workdir", str(tmp_path / "x"), "--seed", "soon"]
    assert subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs).returncode == 2
    printed = os.read(ours, 10_000).decode()
    assert printed.count("\n") == 1 and "soon" in printed and "\x1b" not in printed and "│" not in printed


def test_a_workdir_whose_making_was_interrupted_is_no_obstacle(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.py").write_text("half")
    assert workdir.prepare(tmp_path / "run", TINY, {"width": 8})
    assert not workdir.prepare(tmp_path / "run", TINY, {"width": 8})
    assert (tmp_path / "run" / "experiment.py").read_text() == TINY.read_text()


@pytest.mark.parametrize("value", [(1, (2.5, "a")), None, True, float("nan"), -3])
def test_knobs_come_back_as_they_were(tmp_path, value):
    workdir.prepare(tmp_path / "run", TINY, {"knob": value})
    assert repr(workdir.read_knobs(tmp_path / "run")) == repr({"knob": value})
    assert not workdir.prepare(tmp_path / "run", TINY, {"knob": value})


def test_knobs_that_would_not_come_back_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the knob folder = "):
        workdir.prepare(tmp_path / "run", TINY, {"folder": tmp_path})
    assert not (tmp_path / "run").exists()


def test_mistakes_in_names(finished, tmp_path, capsys):
    assert "digits" in fails(capsys, "train", "digts.py", "--workdir", str(tmp_path / "x"))
    assert "is not a workdir" in fails(capsys, "sample", str(tmp_path / "nowhere"))
    assert "is not a workdir" in fails(capsys, "evaluate", str(tmp_path))
    assert "did you mean sample" in fails(capsys, "smaple", str(tmp_path))
    assert "another experiment" in fails(capsys, "train", "digits", "--workdir", str(finished))
    (tmp_path / "notes.txt").write_text("mine")
    assert "not empty" in fails(capsys, "train", str(TINY), "--workdir", str(tmp_path))
    assert "/dev/null" in fails(capsys, "train", str(TINY), "--workdir", "/dev/null/run")


def test_help_lists_the_knobs_with_defaults_and_meanings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(TINY), "--help"])
    assert stop.value.code in (0, None)
    printed = capsys.readouterr().out
    assert re.search(r"--width INT\s+channels of the U-Net\.? \(default: 8\)", re.sub(r"[│\s]+", " ", printed))


@pytest.mark.parametrize("command", ["train", "plan"])
def test_help_before_an_experiment_is_named(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert not stop.value.code and "EXPERIMENT" in capsys.readouterr().out


def test_plan_counts_what_it_can_be_held_to(tmp_path):
    assert main(["plan", str(TINY), "--json", str(tmp_path / "plan.json")]) == 0
    costs = json.loads((tmp_path / "plan.json").read_text())
    assert costs["parameter_bytes"] == costs["ema_bytes"] == 4 * costs["parameters"]
    assert costs["optimizer_bytes"] >= 8 * costs["parameters"]  # Adam's two moments
    assert costs["flops"] == 12 * costs["flops_per_step"] > 0


def test_every_shipped_experiment_is_listed(capsys):
    assert main(["experiments"]) == 0
    printed = capsys.readouterr().out
    for name, path in experiment_files.shipped().items():
        assert name in printed and experiment_files.headline(path) in printed


def test_the_front_door_is_a_pure_function_of_keys(finished):
    run = ddpm_jax.load(finished)
    draw = run.sampler(steps=10, eta=0.0)
    images = np.asarray(draw(ddpm_jax.keys(seed=0, num=4)))
    assert images.shape == (4, 8, 8, 1) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, draw(ddpm_jax.keys(seed=0, num=4)))
    shifted = np.asarray(draw(ddpm_jax.keys(seed=0, num=4, start=2)))
    np.testing.assert_array_equal(images[2:], shifted[:2])
    assert read(finished).process.schedule.num_steps == 50
