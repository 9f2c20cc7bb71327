"""Runs whose train state holds a history and further averages: killed or not, on one device or eight, read later."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from mistakes import fails

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.runs import experiment_files, resume, step_program, workdir
from ddpm_jax.runs.costs import tree_bytes
from ddpm_jax.runs.plan import plan
from ddpm_jax.runs.requests import TrainRequest
from ddpm_jax.runs.train import initial_state, restored, snapshot_period, train
from ddpm_jax.training import StopRequest, checkpoints, sharding, snapshots
from ddpm_jax.training.averages import reconstruction

SOURCE = Path(__file__).parents[1] / "experiments" / "points.py"
POINTS = experiment_files.read(SOURCE)
STEPS = range(2, 11, 2)
"""The steps of the snapshots."""


class StopAt(StopRequest):
    """A request to stop that comes after some calls of the train step."""

    def __init__(self, calls):
        super().__init__()
        self._left = calls + 1

    def reached(self):
        self._left -= 1
        return self._left == 0


def trained(folder, stops=(None,), **knobs):
    """The state of a run that was stopped after each of these numbers of steps, and then resumed."""
    workdir.prepare(folder, SOURCE, experiment_files.defaults(POINTS) | knobs)
    for calls in stops:
        state = train(workdir.read(folder), folder, StopRequest() if calls is None else StopAt(calls))
    return state


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The workdir of a finished run of ten steps with a snapshot every two steps, and its last state."""
    folder = tmp_path_factory.mktemp("runs") / "points"
    return folder, trained(folder)


@pytest.mark.slow  # the next test resumes such a run, too
def test_a_run_that_was_stopped_is_the_run_that_was_not(run, tmp_path):
    """To the bit: parameters, all averages, the history, and every snapshot. The stop lies between two periods."""
    folder, state = run
    again = trained(tmp_path / "points", stops=(5, None))
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert int(state.history.count.min()) >= 2  # t was drawn by importance
    records = [_digests(each / "averages") for each in (folder, tmp_path / "points")]
    assert records[0] == records[1] and records[0].keys() == {str(step) for step in STEPS}


def _digests(folder):
    return {path.name: (path / "digests" / "metadata").read_text() for path in folder.iterdir()}


def test_a_run_killed_between_a_checkpoint_and_its_snapshot_writes_it(run, tmp_path):
    """And forgets what came after the checkpoint from which it goes on."""
    folder = shutil.copytree(run[0], tmp_path / "points")
    for name in ("checkpoints/10", "checkpoints/8", "averages/6"):
        shutil.rmtree(folder / name)
    (folder / "averages" / "8").rename(folder / "averages" / "9")  # of steps that the run has not taken yet
    state = train(workdir.read(folder), folder, StopRequest())
    jax.tree.map(np.testing.assert_array_equal, state, run[1])
    assert _digests(folder / "averages") == _digests(run[0] / "averages")


@pytest.mark.slow
def test_one_device_is_eight():
    """From uniform t to t drawn by importance. With fsdp the averages are split as the parameters are."""
    one = _stepped(sharding.make_mesh({"data": 1}, jax.devices()[:1]))
    assert int(one.history.count.min()) >= 2
    for sizes in ({"data": 8}, {"data": 2, "fsdp": 4}):
        many = _stepped(sharding.make_mesh(sizes))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, many)
        np.testing.assert_array_equal(one.history.count, many.history.count)
        split = [x for x in jax.tree.leaves(many.averages["power_0.1"]) if not x.sharding.is_fully_replicated]
        assert bool(split) == ("fsdp" in sizes) and many.history.losses.sharding.is_fully_replicated


def _stepped(mesh):
    """The state after six steps of gradient descent with parameters that fsdp splits."""
    experiment = dataclasses.replace(POINTS(width=128), optimizer=optax.sgd(1e-3))
    program = step_program.make_program(experiment, mesh, experiment.data.open("train"))
    state = initial_state(experiment, mesh)
    for step in range(6):
        state, _ = program.advance(state, step)
    return state


def test_an_average_that_is_stored_is_read_as_it_is(run):
    for length in (0.05, 0.1):
        loaded = ddpm_jax.load(run[0], length)
        assert loaded.step == 10
        jax.tree.map(np.testing.assert_array_equal, loaded.params, run[1].averages[f"power_{length:g}"])


def test_another_length_is_the_weighted_sum_of_the_snapshots(run):
    """Of those that were written during training, recorded here by a run of the same steps."""
    experiment = workdir.read(run[0])
    mesh = sharding.make_mesh()
    program = step_program.make_program(experiment, mesh, experiment.data.open("train"))
    state, stored = initial_state(experiment, mesh), []
    for step in range(10):
        state, _ = program.advance(state, step)
        if step % 2:
            stored += [jax.device_get(state.averages[name]) for name in ("power_0.05", "power_0.1")]
    weights, _ = reconstruction([(step, each) for step in STEPS for each in (0.05, 0.1)], 10, 0.075)
    expected = jax.tree.map(lambda *each: sum(w * x for w, x in zip(weights, each, strict=True)), *stored)
    found = ddpm_jax.load(run[0], 0.075).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), found, expected)


def test_a_damaged_snapshot_is_left_out(run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoints, "PAUSES", ())
    folder, whole = shutil.copytree(run[0], tmp_path / "points"), ddpm_jax.load(run[0], 0.075).params
    (folder / "averages" / "4" / "digests" / "metadata").write_text("{}")
    with caplog.at_level(logging.WARNING):
        params = ddpm_jax.load(folder, 0.075).params
    assert "the averages of step 4" in caplog.text and "are left out" in caplog.text
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.05, atol=0.01), params, whole)


def test_lengths_that_cannot_be_computed_are_refused(run, tmp_path, capsys):
    message = fails(capsys, "sample", str(run[0]), "--weights", "0.01", "--out", str(tmp_path / "a.npz"))
    assert "--weights 0.01: an average of relative length 0.01 cannot be computed" in message and "0.05, 0.1" in message
    message = fails(capsys, "sample", str(run[0]), "--weights", "0.4")
    assert "--weights 0.4: the relative length of an average lies above 0 and below 0.2887" in message
    message = fails(capsys, "sample", str(run[0]), "--weights", "averaged")
    assert "--weights: averaged is not one of {ema,raw}|FLOAT" in message
    with pytest.raises(ValueError, match="weights must be ema, raw or the relative length of an average, got 'sma'"):
        ddpm_jax.load(run[0], "sma")


def test_a_run_without_further_averages_says_so(tmp_path):
    workdir.prepare(tmp_path / "points", SOURCE, {"power_ema": False})
    with pytest.raises(ValueError, match=r"--weights 0\.1: .* keeps no averages for it: train with --power-ema"):
        ddpm_jax.load(tmp_path / "points", 0.1)


def test_commands_take_a_length(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "points")
    out = tmp_path / "points.npz"
    assert main(["sample", str(folder), "--weights", "0.10", "--num", "8", "--out", str(out)]) == 0
    sample = ddpm_jax.load(folder, 0.1).sampler()
    np.testing.assert_allclose(np.load(out)["arr_0"], sample(ddpm_jax.keys(0, 8)), rtol=1e-5, atol=1e-5)
    assert main(["evaluate", str(folder), "--weights", "0.1", "--num", "8"]) == 0
    (record,) = json.loads((folder / "evaluation.json").read_text())
    assert record["weights"] == record["protocol"]["weights"] == 0.1


def test_a_run_may_start_from_a_length(run, tmp_path):
    request = TrainRequest(workdir=tmp_path / "new", start_from=run[0], weights=0.075)
    params = resume.start(request, workdir.read(run[0]))
    jax.tree.map(np.testing.assert_array_equal, params, ddpm_jax.load(run[0], 0.075).params)
    origin = json.loads(json.dumps(resume.origin_of(request)))
    workdir.prepare(tmp_path / "new", SOURCE, {}, **{"from": origin})
    resume.check_origin(tmp_path / "new", origin)
    with pytest.raises(ValueError, match=r"a run that started from the 0\.075 weights of"):
        resume.check_origin(tmp_path / "new", origin | {"weights": "ema"})


@pytest.mark.parametrize("steps, save, period", [(800_000, 10_000, 20_000), (16, 2, 2), (3000, 7, 49), (10, 0, 0)])
def test_there_are_at_most_64_snapshots_each_with_a_checkpoint(steps, save, period):
    made = POINTS()
    experiment = dataclasses.replace(made, num_steps=steps, every=dataclasses.replace(made.every, save=save))
    assert snapshot_period(experiment) == period
    assert not period or (period % save == 0 and steps // period <= snapshots.MOST)


def test_the_plan_counts_all_averages_and_the_history():
    costs, state = plan(POINTS()), initial_state(POINTS(), sharding.make_mesh())
    assert costs.ema_bytes == tree_bytes(state.averages) == 3 * costs.parameter_bytes
    kept = costs.parameter_bytes + costs.optimizer_bytes + costs.ema_bytes
    assert costs.total_bytes - costs.batch_bytes - costs.activation_bytes == tree_bytes(state)
    assert tree_bytes(state) - kept == 4 + 4 * 4 * 3  # the step; two losses and a count for each of four t


def test_a_run_of_a_version_without_the_history_begins_one(tmp_path):
    experiment, mesh = POINTS(power_ema=False), sharding.make_mesh()
    state = initial_state(experiment, mesh)
    with checkpoints.manager(tmp_path) as manager:
        checkpoints.save(manager, state._replace(history=None))
        manager.wait_until_finished()
        found = restored(manager, experiment, mesh)
    jax.tree.map(np.testing.assert_array_equal, found, state)
    jax.tree.map(lambda a, b: a.sharding == b.sharding or pytest.fail("another sharding"), found, state)


def test_two_equal_lengths_are_a_mistake():
    with pytest.raises(ValueError, match="power_averages must differ"):
        dataclasses.replace(POINTS(), power_averages=(0.1, 0.1))
    with pytest.raises(ValueError, match="relative length of an average"):
        dataclasses.replace(POINTS(), power_averages=(0.1, 0.3))
