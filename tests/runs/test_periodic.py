"""Evaluation during training: it changes nothing, is the same after a stop, and measures what `evaluate` does."""

import dataclasses
import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from mistakes import fails
from PIL import Image
from recorder import Recorder

import ddpm_jax
from ddpm_jax.data import swiss_roll
from ddpm_jax.experiment import Every, init_fn
from ddpm_jax.metrics import frechet_distance, moments
from ddpm_jax.runs import experiment_files, periodic, workdir
from ddpm_jax.runs import train as training
from ddpm_jax.runs.likelihood import bits_per_dim
from ddpm_jax.runs.requests import Execution
from ddpm_jax.runs.statistics import Spread
from ddpm_jax.sampling import Run
from ddpm_jax.training import StopRequest, sharding

LINE = Path(__file__).parents[1] / "experiments" / "line.py"
BEST = Execution(keep_best="frechet", samples=16)


def line(**knobs):
    return experiment_files.build(experiment_files.read(LINE), knobs)


class Stopping(Recorder):
    """Also stops the run at a line that begins with `start`."""

    def __init__(self, start: str = "never"):
        super().__init__()
        self.stop, self.start = StopRequest(), start

    def line(self, text):
        super().line(text)
        if text.startswith(self.start):
            self.stop.signal = signal.SIGTERM


def trained(folder: Path, start: str = "never", execution: Execution = BEST, **knobs):
    """The state after the run in the workdir `folder`, and the lines that it reported."""
    workdir.prepare(folder, LINE, experiment_files.defaults(experiment_files.read(LINE)) | knobs)
    reporter = Stopping(start)
    return training.train(line(**knobs), folder, reporter.stop, execution, reporter), reporter.lines


def rows(folder: Path) -> list[dict]:
    """The rows of evaluations."""
    found = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if "bpd" in row]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, state, lines) of a run that was evaluated and never stopped."""
    folder = tmp_path_factory.mktemp("periodic") / "run"
    return folder, *trained(folder)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_run_that_is_evaluated_is_the_run_that_is_not(whole, tmp_path):
    """Parameters, averages and optimizer, to the bit."""
    plain, _ = trained(tmp_path / "run", execution=Execution(), evaluate_every=None)
    equal(whole[1], plain)
    assert not rows(tmp_path / "run") and not (tmp_path / "run" / "best").exists()


def test_a_resumed_run_writes_the_same_rows_and_keeps_the_same_best(whole, tmp_path):
    """Stopped at an evaluation, and then between two."""
    folder, state, _ = whole
    assert int(trained(tmp_path / "run", "step 2:")[0].step) == 2
    resumed, _ = trained(tmp_path / "run")
    equal(state, resumed)
    assert rows(tmp_path / "run") == rows(folder)
    equal(*(ddpm_jax.load(each, checkpoint="best").params for each in (folder, tmp_path / "run")))


def test_rows_lines_picture_and_best_checkpoint_agree(whole):
    folder, _, lines = whole
    found = rows(folder)
    assert [row["step"] for row in found] == [2, 4, 6]
    assert all(np.isfinite([row[name] for name in ("bpd", "bpd_error", "frechet_pixels")]).all() for row in found)
    best = min(found, key=lambda row: row["frechet_pixels"])["step"]
    assert ddpm_jax.load(folder, checkpoint="best").step == best and ddpm_jax.load(folder).step == 6
    reported = [text for text in lines if "bits/dim" in text]
    assert [text.split(":")[0] for text in reported] == ["step 2", "step 4", "step 6"]
    assert [text for text in reported if text.endswith("the best so far")][-1].startswith(f"step {best}:")
    with Image.open(folder / "evaluation.png") as picture:
        assert picture.size[0] > picture.size[1]


def test_a_run_that_unlearns_is_best_at_its_first_evaluation(tmp_path):
    """The optimizer climbs, so that bits/dim rise from step to step."""
    execution = Execution(keep_best="bpd", samples=2)
    _, lines = trained(tmp_path / "run", execution=execution, learning_rate=-0.1, num_steps=3, evaluate_every=1)
    assert [row["bpd"] for row in rows(tmp_path / "run")] == sorted(row["bpd"] for row in rows(tmp_path / "run"))
    assert ddpm_jax.load(tmp_path / "run", checkpoint="best").step == 1
    assert sum("the best so far" in text for text in lines) == 1


@pytest.fixture(scope="module")
def measuring():
    """(experiment, parameters, metrics on eight devices, which split parameters over two)."""
    experiment = line(seed=3)
    params = jax.jit(init_fn(experiment))(jax.random.key(1))
    return experiment, params, on(experiment, sharding.make_mesh({"fsdp": 2}))


def on(experiment, mesh):
    return periodic.metrics(experiment, mesh, Execution(samples=20), Path())


def test_the_values_are_those_of_the_bound_and_of_the_samples(measuring):
    """Measured by other ways: chunk by chunk on each device, and from the moments of the images of `Run.sampler`."""
    experiment, params, metrics = measuring
    found = {name: metric.measure(params) for name, metric in metrics.items()}
    run = Run(experiment, params, 0)
    test, train = (experiment.data.open(split) for split in ("test", "train"))
    expected = bits_per_dim(run, Spread(test, periodic.EXAMPLES), seed=experiment.seed).total
    np.testing.assert_allclose(found["bpd"], expected, rtol=1e-5)
    drawn = run.sampler(9, sampler="dpm++2m", spacing="logsnr")(ddpm_jax.keys(experiment.seed, 20))
    references = periodic.pictures(Spread(train, 1000), range(1000), experiment.data.levels)
    pixels = (np.asarray(images, np.float64).reshape(len(images), -1) / 255 for images in (drawn, references))
    distance, error = found["frechet_pixels"]
    assert error is None
    np.testing.assert_allclose(distance, frechet_distance(*map(moments, pixels)), rtol=1e-3)


def test_the_mesh_does_not_matter_and_no_evaluation_compiles_after_the_first(measuring):
    experiment, params, metrics = measuring
    alone = on(experiment, sharding.make_mesh(devices=jax.devices()[:1]))
    for name in alone:
        np.testing.assert_allclose(alone[name].measure(params)[0], metrics[name].measure(params)[0], rtol=1e-3)
    changed, compiled = jax.tree.map(lambda x: x + 0.01, params), []

    def listener(name: str, *_, **__) -> None:
        compiled.append("compile" in name)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.jit(lambda x: x + 0.02)(1.0)
        assert any(compiled)  # so that a compilation would be noticed
        compiled.clear()
        for metric in metrics.values():
            assert metric.measure(changed)[0] != metric.measure(params)[0]
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert not any(compiled)


def evaluating(experiment, every: int | None = 1):
    return dataclasses.replace(experiment, every=Every(evaluate=every))


@pytest.mark.parametrize(
    "every, options, message",
    [
        (None, {"keep_best": "bpd"}, "--keep-best is for evaluations during training: add --evaluate-every"),
        (None, {"samples": 9}, "--samples is for evaluations during training"),
        (1, {"samples": 1}, "--samples must be at least 2 for a Frechet distance, got 1"),
        (1, {"features": "inception", "inception_weights": Path("/nowhere")}, "choose --features pixels"),
    ],
)
def test_mistakes_in_evaluations(every, options, message):
    with pytest.raises(ValueError, match=message):
        periodic.check(evaluating(line(), every), Execution(**options))


def test_mistakes_of_data():
    empty = dataclasses.replace(line().data, open=lambda split: [])
    with pytest.raises(ValueError, match="digits has no test examples for evaluations: leave out --evaluate-every"):
        periodic.check(dataclasses.replace(evaluating(line()), data=empty), Execution())
    roll = experiment_files.build(experiment_files.read(experiment_files.find("sohl_dickstein_2015/swiss_roll")), {})
    roll = evaluating(dataclasses.replace(roll, data=swiss_roll(num_train=8, num_test=8)))
    periodic.check(roll, Execution(keep_best="bpd"))
    with pytest.raises(ValueError, match="--keep-best: a Frechet distance is for images of bytes"):
        periodic.check(roll, Execution(keep_best="frechet"))


def test_mistakes_on_the_command_line(whole, finished, tmp_path, capsys):
    train = ["train", str(LINE), "--workdir", str(tmp_path / "never")]
    assert "evaluate_every must be at least 1, or None for never, got 0" in fails(
        capsys, *train, "--evaluate-every", "0"
    )
    assert "evaluate_every must be at least 1, or None for never, got -5" in fails(
        capsys, *train, "--evaluate-every", "-5"
    )
    assert "fid" in fails(capsys, *train, "--keep-best", "fid")
    assert "--checkpoint best: applies with --from" in fails(capsys, *train, "--checkpoint", "best")
    assert not (tmp_path / "never").exists()
    assert "has no best checkpoint: train --keep-best bpd" in fails(
        capsys, "sample", str(finished), "--checkpoint", "best"
    )
    with pytest.raises(ValueError, match="checkpoint must be newest or best, got 'last'"):
        ddpm_jax.load(whole[0], checkpoint="last")
