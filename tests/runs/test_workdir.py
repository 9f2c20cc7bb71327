"""A workdir: created once, owned by one experiment with its knobs, and loaded on any devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ddpm_jax.runs import experiment_files, workdir
from ddpm_jax.runs.train import initial_state
from ddpm_jax.training import checkpoints, sharding

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def test_a_workdir_whose_making_was_interrupted_is_no_obstacle(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.py").write_text(TINY.read_text())
    (tmp_path / "run" / "experiment.json.0123abcd.part").write_text("half")
    assert workdir.prepare(tmp_path / "run", TINY, {"width": 8})
    assert not workdir.prepare(tmp_path / "run", TINY, {"width": 8})
    assert (tmp_path / "run" / "experiment.py").read_text() == TINY.read_text()


@pytest.mark.parametrize("name", ["experiment.py", "film.part", "notes.txt"])
def test_a_file_of_the_user_is_never_replaced(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="is not empty and is not a workdir"):
        workdir.prepare(tmp_path, TINY, {"width": 8})
    with pytest.raises(ValueError, match="is not empty"), workdir.held(tmp_path, TINY):
        pytest.fail("the folder was taken")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_what_others_write_in_a_workdir_stays(tmp_path):
    """Such as the images that an interrupted `sample` keeps, or what `evaluate` is writing."""
    workdir.prepare(tmp_path, TINY, {})
    (tmp_path / "images.0123abcd.part").mkdir()
    (tmp_path / "x.npz.0123abcd.part").touch()
    (tmp_path / "experiment.json.0123abcd.part").touch()
    with workdir.held(tmp_path, TINY):
        left = {path.name for path in tmp_path.glob("*.part")}
    assert left == {"images.0123abcd.part", "x.npz.0123abcd.part"}


@pytest.mark.parametrize("text", ["", "[]", '{"knobs": {}}'])
def test_a_damaged_record_is_named(tmp_path, text):
    workdir.prepare(tmp_path, TINY, {})
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(ValueError, match=r"experiment\.json is damaged"):
        workdir.read(tmp_path)


@pytest.mark.parametrize("value", [(1, (2.5, "a")), None, True, float("nan"), -3])
def test_knobs_come_back_as_they_were(tmp_path, value):
    workdir.prepare(tmp_path / "run", TINY, {"knob": value})
    assert repr(workdir.read_knobs(tmp_path / "run")) == repr({"knob": value})
    assert not workdir.prepare(tmp_path / "run", TINY, {"knob": value})


def test_knobs_that_would_not_come_back_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the knob folder = "):
        workdir.prepare(tmp_path / "run", TINY, {"folder": tmp_path})
    assert not (tmp_path / "run").exists()


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
