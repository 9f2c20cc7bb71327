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
