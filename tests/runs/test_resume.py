"""What may change when a run is resumed, where a run may start, and that two processes never share a workdir."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from mistakes import fails
from PIL import Image

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.data import Data
from ddpm_jax.data.dataset import Listing
from ddpm_jax.runs import experiment_files, quick, resume, workdir
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import TrainRequest
from ddpm_jax.runs.train import check

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run of twelve steps, which may be written to."""
    return shutil.copytree(finished, tmp_path / "run")


def same(one: Path, other: Path, weights: str = "ema") -> None:
    runs = [ddpm_jax.load(each, weights) for each in (one, other)]
    assert runs[0].step == runs[1].step
    jax.tree.map(np.testing.assert_array_equal, *(each.params for each in runs))


@pytest.mark.slow
def test_a_finished_run_made_longer_is_the_longer_run(run, train, tmp_path):
    """Its learning rate is constant: no step depends on the length."""
    assert train(tmp_path / "long", "--num-steps", "16").wait() == 0
    again = train(run, "--num-steps", "16", "--save-every", "8")
    printed, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "changed at step 12: --num-steps 12, not 16, --save-every 4, not 8" in printed
    same(run, tmp_path / "long")
    record = json.loads((run / "experiment.json").read_text())
    assert record["knobs"]["num_steps"] == 16
    assert record["changes"] == [{"step": 12, "knobs": {"num_steps": 12, "save_every": 4}}]


def test_the_number_of_classes_that_was_counted_is_a_knob_of_the_run(tmp_path):
    """So that the run is sampled where its pictures are not at hand, and resumed by the command that began it."""
    for name in ("cats", "dogs"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / name / "a.png")
    pictures = experiment_files.read(experiment_files.find("pictures"))
    given = experiment_files.defaults(pictures) | {"path": str(tmp_path / "pictures"), "size": 16, "labels": True}
    knobs = resume.settled(given, experiment_files.build(pictures, given))
    assert given["num_classes"] is None and knobs["num_classes"] == 2
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    assert experiment_files.build(pictures, knobs).num_classes == 2
    without = given | {"labels": False}
    assert resume.settled(without, experiment_files.build(pictures, without)) == without


def test_a_learning_rate_that_depends_on_the_length_fixes_it(tmp_path):
    """The rate of digits rises for 100 steps, whatever the length, and then falls to zero at the end."""
    short, long = (
        experiment_files.build(experiment_files.read(experiment_files.find("digits")), {"num_steps": n})
        for n in (1500, 3000)
    )
    resume.check_length(tmp_path, short, long, step=0)
    resume.check_length(tmp_path, short, long, step=101)
    with pytest.raises(ValueError, match="the learning rate of this experiment depends on the length"):
        resume.check_length(tmp_path, short, long, step=300)
    with pytest.raises(ValueError, match="has taken 1600 steps already"):
        resume.check_length(tmp_path, long, short, step=1600)


def test_the_own_copy_of_the_experiment_has_the_knobs_of_the_run(run, tmp_path, capsys):
    assert main(["train", str(run / "experiment.py"), "--workdir", str(run), "--num-steps", "12"]) == 0
    assert "finished: 12 steps" in capsys.readouterr().out
    message = fails(capsys, "train", str(run / "experiment.py"), "--workdir", str(run), "--seed", "1")
    assert "--seed 0, not 1" in message and f"--from {run}" in message


def test_changed_data_are_refused_unless_it_is_said(run, capsys):
    record = json.loads((run / "experiment.json").read_text())
    record["data"] = {"digest": "0" * 64, "found": "1,436 examples in the train split"}
    (run / "experiment.json").write_text(json.dumps(record))
    message = fails(capsys, "train", str(TINY), "--workdir", str(run))
    assert "then: 1,436 examples" in message and "now: 1,437 examples" in message and "--data-changed" in message
    assert main(["train", str(TINY), "--workdir", str(run), "--data-changed"]) == 0
    assert main(["train", str(TINY), "--workdir", str(run)]) == 0  # the new data are recorded


def test_data_may_change_before_the_first_checkpoint(tmp_path):
    """Such as pictures that turned out to be broken when they were loaded."""
    first, now = ({"digest": name, "found": f"{name} pictures"} for name in ("9", "8"))
    workdir.prepare(tmp_path, TINY, {}, data=first)
    resume.check_data(tmp_path, now, changed=False)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    resume.check_data(tmp_path, first, changed=False)
    with pytest.raises(ValueError, match=r"then: 9 pictures; now: 8 pictures.*--data-changed"):
        resume.check_data(tmp_path, now, changed=False)
    resume.check_data(tmp_path, now, changed=True)
    resume.adopt(tmp_path, {}, {}, now, Reporter())
    record = workdir.read_record(tmp_path)
    assert record["data"] == now and record["changes"] == [{"step": 4, "data": first}]


def test_a_command_that_is_refused_records_nothing(run, capsys):
    """Neither the changed data, nor the knob that may change."""
    record = json.loads((run / "experiment.json").read_text())
    record["data"] = {"digest": "0" * 64, "found": "9 pictures"}
    (run / "experiment.json").write_text(json.dumps(record))
    before = (run / "experiment.json").read_bytes()
    fails(capsys, "train", str(TINY), "--workdir", str(run), "--data-changed", "--save-every", "2", "--dropout", "0.3")
    assert (run / "experiment.json").read_bytes() == before


def test_weights_apply_to_the_run_to_start_from(tmp_path, capsys):
    message = fails(capsys, "train", str(TINY), "--workdir", str(tmp_path / "new"), "--weights", "raw")
    assert "--weights raw: applies with --from" in message and not (tmp_path / "new").exists()


def test_data_are_identified_by_their_listing_or_by_their_examples():
    def data(pixel: int, listing=None) -> Data:
        source = [{"image": np.full((2, 2, 1), pixel + n, np.uint8)} for n in range(5)]
        return Data("mine", (2, 2, 1), open=lambda split: source, listing=listing)

    identity = resume.data_identity
    assert identity(data(0), "train") == identity(data(0), "train") != identity(data(1), "train")
    listed = [data(n, lambda: Listing("5 pictures", "abc")) for n in range(2)]
    assert identity(listed[0], "train") == identity(listed[1], "train") == {"digest": "abc", "found": "5 pictures"}


def test_fine_tuning_starts_from_the_parameters_of_another_run(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quick, "quick", lambda *_: None)  # the estimate at the end takes up to 30 seconds
    new = tmp_path / "new"
    options = ["--from", str(finished), "--weights", "raw", "--batch-size", "16", "--num-steps", "1"]
    options += ["--sample-every", "0"]  # nor are images drawn
    command = ["train", str(TINY), "--workdir", str(new), *options]
    assert main(command) == 0
    begun, tuned = ddpm_jax.load(finished, "raw").params, ddpm_jax.load(new, "raw").params
    # one step of Adam moves a parameter by its learning rate of 2e-3 at most
    assert max(float(np.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (begun, tuned)), strict=True)) < 2.01e-3
    assert json.loads((new / "experiment.json").read_text())["from"] == {"workdir": str(finished), "weights": "raw"}
    assert "started from the raw weights" in fails(capsys, *command, "--weights", "ema")


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_parameters_to_start_from(finished, tmp_path, weights):
    request = TrainRequest(workdir=tmp_path / "new", start_from=finished, weights=weights)
    params = resume.start(request, workdir.read(finished))
    jax.tree.map(np.testing.assert_array_equal, params, ddpm_jax.load(finished, weights).params)


def test_a_network_of_another_shape_cannot_start_there(finished, tmp_path, capsys):
    command = ["train", str(TINY), "--workdir", str(tmp_path / "new"), "--from", str(finished), "--width", "16"]
    assert re.search(r"the parameter \S+ is \(.*\) there and \(.*\) here", fails(capsys, *command))
    assert not (tmp_path / "new").exists()
    command[5] = str(tmp_path / "nowhere")
    assert "is not a workdir" in fails(capsys, *command[:6])


def test_a_run_that_was_killed_before_its_first_checkpoint_still_starts_there(finished, tmp_path):
    request = TrainRequest(workdir=tmp_path / "new", start_from=finished)
    experiment = workdir.read(finished)
    with resume.opened(request, TINY, workdir.read_knobs(finished), experiment, Reporter()):
        pass
    again = TrainRequest(workdir=tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, resume.start(again, experiment), ddpm_jax.load(finished).params)


def test_a_second_process_is_kept_out(run, capsys):
    hold = "import sys, pathlib, time; from ddpm_jax.system.locks import locked\n"
    hold += "with locked(pathlib.Path(sys.argv[1]) / '.lock'): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(run)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    message = fails(capsys, "train", str(TINY), "--workdir", str(run))
    assert f"{run} is in use by process {process.pid} on" in message
    process.kill()
    process.wait()
    assert main(["train", str(TINY), "--workdir", str(run)]) == 0


def test_an_average_that_stays_the_initial_network_is_reported():
    lines = []
    reporter = Reporter()
    reporter.line = lines.append
    for steps in (1, 12, 40):
        check(experiment_files.build(experiment_files.read(TINY), {"num_steps": steps}), reporter=reporter)
    # the decay is 0.9: 0.9^12 = 0.28, and 0.9^40 is below the 5 % from which on a line is due
    assert [re.search(r"\d+% of the average is the initial parameters", line)[0][:3] for line in lines] == [
        "90%",
        "28%",
    ]
