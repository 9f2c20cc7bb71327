"""How a run is fed and cut into calls, where the journey of a run (on one CPU, data resident) does not come by."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.experiment import Every
from ddpm_jax.runs import experiment_files, step_program
from ddpm_jax.runs.plan import plan
from ddpm_jax.runs.train import initial_state
from ddpm_jax.training import Action, StopRequest, TrainState, fit, sharding

TINY = experiment_files.read(Path(__file__).parents[1] / "experiments" / "tiny.py")


class Calls:
    """Stands for the compiled steps: counts them and remembers where each call ended."""

    def __init__(self):
        self.ends, self.speed = [], lambda rate: {}

    def __call__(self, state, data, index):
        self.ends.append(int(state.step) + len(index))
        return state._replace(step=jnp.int32(self.ends[-1])), {"loss": jnp.zeros(len(index))}


@pytest.mark.parametrize("start", [0, 3, 4])
def test_wherever_it_is_resumed_no_period_is_missed(monkeypatch, start):
    """A run stopped on a CPU, between periods, is resumed on a device where a call has many steps."""
    experiment = TINY(num_steps=20, save_every=8)
    calls, saved = Calls(), []
    monkeypatch.setattr(step_program, "steps_a_call", lambda experiment, backend: 4)
    monkeypatch.setattr(step_program, "Compiled", lambda *_: calls)
    advance = step_program.make_program(experiment, sharding.make_mesh(), experiment.data.open("train")).advance
    state = TrainState(jnp.int32(start), None, None, None)
    fit(state, advance, 20, [Action(8, lambda step, *_: saved.append(step))], StopRequest())
    assert saved == [8, 16, 20]
    assert calls.ends == list(range(4 * (start // 4) + 4, 21, 4))


@pytest.mark.parametrize(
    "every, count",
    [
        (Every(50, 500, 500), 50),
        (Every(100, 2000, 2000), 50),
        (Every(7, 0, 0), 7),
        (Every(0, 0, 0), 64),
        (Every(50, 500, 500, 30), 10),
    ],
)
def test_calls_are_as_long_as_the_periods_allow(every, count):

    experiment = dataclasses.replace(TINY(), every=every)
    assert step_program.steps_a_call(experiment, "gpu") == count
    assert step_program.steps_a_call(experiment, "cpu") == 1


@pytest.mark.parametrize("limit, kept", [(24, "resident"), (23, "streamed")])
def test_data_stay_on_the_device_as_long_as_their_bytes_fit(monkeypatch, limit, kept):
    """Three points of two float32: 24 bytes."""
    monkeypatch.setattr(step_program, "RESIDENT_BYTES", limit)
    programs = {name: step_program.Program(Calls(), lambda rate: {}) for name in ("resident", "streamed")}
    for name, program in programs.items():
        monkeypatch.setattr(step_program, f"_{name}", lambda *_, program=program: program)
    experiment = experiment_files.read(experiment_files.find("sohl_dickstein_2015/swiss_roll"))()
    assert step_program.make_program(experiment, sharding.make_mesh(), range(3)) is programs[kept]


@pytest.fixture
def traces(monkeypatch):
    """A list of the traces that JAX's profiler has written, each the list of the calls in it."""
    written, open_traces = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: open_traces.append([]))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: written.append(open_traces.pop()))
    return written, open_traces


def profile(traces, span, length, end, num_steps=200, start=0):
    """Trains in calls of `length` steps with this span, up to step `end`, where an error ends the run."""
    _, open_traces = traces

    def advance(state, step):
        if step >= end:
            raise KeyboardInterrupt
        for trace in open_traces:
            trace.append(step)
        return state, {"loss": jnp.zeros(length)}

    program = step_program.Program(advance, lambda rate: {}, lambda step: length)
    with (
        contextlib.suppress(KeyboardInterrupt),
        step_program.profiled(program, Path("profile"), step_program.span(span)) as traced,
    ):
        for step in range(start, num_steps, length):
            traced(TrainState(jnp.int32(step), None, {}, None), step)
    assert not open_traces
    return traces[0]


@pytest.mark.parametrize(
    "span, length, calls",
    [
        ("110:120", 50, [100]),
        ("100:150", 50, [100]),
        ("99:101", 50, [50, 100]),
        ("0:1", 50, [0]),
        ("149:150", 50, [100]),
        ("10:12", 1, [10, 11]),
        ("190:300", 50, [150]),
        ("20:160", 50, [0, 50, 100, 150]),
    ],
)
def test_the_calls_that_meet_the_span_are_traced(traces, span, length, calls):
    assert profile(traces, span, length, end=1000) == [calls]


def test_a_trace_is_written_whatever_ends_the_run(traces):
    assert profile(traces, "60:180", 50, end=100) == [[50]]


@pytest.mark.parametrize("span, start", [("200:210", 0), ("10:50", 50)])
def test_without_a_step_in_the_span_there_is_no_trace(traces, span, start):
    assert profile(traces, span, 50, end=1000, start=start) == []


def test_a_span_after_the_end_of_the_run_is_refused():
    assert step_program.span("11:20", 12) == (11, 20)
    with pytest.raises(ValueError, match="--profile 12:20: the run has 12 steps only"):
        step_program.span("12:20", 12)


def test_the_length_of_a_call_is_known_before_it(monkeypatch):
    """Between two of its multiples, and at the end of the run, too."""
    calls = Calls()
    monkeypatch.setattr(step_program, "steps_a_call", lambda experiment, backend: 8)
    monkeypatch.setattr(step_program, "Compiled", lambda *_: calls)
    experiment = TINY(num_steps=20)
    program = step_program.make_program(experiment, sharding.make_mesh(), experiment.data.open("train"))
    state, step = TrainState(jnp.int32(3), None, None, None), 3
    while step < 20:
        state, _ = program.advance(state, step)
        step += program.length(step)
        assert calls.ends[-1] == step
    assert calls.ends == [8, 16, 20]


@pytest.mark.slow  # trains twice
def test_streamed_training_resumes_as_if_never_stopped(monkeypatch):
    """The path of data sets that are too large for the device."""
    monkeypatch.setattr(step_program, "RESIDENT_BYTES", 0)
    experiment, mesh = TINY(dropout=0.0), sharding.make_mesh()
    source = experiment.data.open("train")

    def walk(state, steps):
        advance = step_program.make_program(experiment, mesh, source).advance
        for step in steps:
            state, metrics = advance(state, step)
        return state, metrics

    whole, metrics = walk(initial_state(experiment, mesh), range(4))
    half, _ = walk(initial_state(experiment, mesh), range(2))
    resumed, _ = walk(half, range(2, 4))
    assert metrics["loss"].shape == (1,) and int(whole.step) == 4
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_a_data_parallel_step_sums_its_gradients_once_and_says_nothing_else():
    costs = plan(TINY())
    assert {kind: count for kind, (count, _) in costs.collectives.items()} == {"all-reduce": 1}
    _, size = costs.collectives["all-reduce"]
    assert 4 * costs.parameters <= size <= 4 * costs.parameters + 64  # and a loss


def test_it_compiles_once():
    experiment, mesh = TINY(), sharding.make_mesh()
    state, batch = (
        abstract(experiment, mesh) for abstract in (step_program.abstract_state, step_program.abstract_batch)
    )
    step = step_program.jitted(experiment, mesh, step_program.train_step(experiment, mesh))
    run = initial_state(experiment, mesh)
    images = {name: sharding.to_devices(np.zeros(x.shape, x.dtype), x.sharding) for name, x in batch.items()}
    for _ in range(3):
        run, _ = step(run, images)
    assert step._cache_size() == 1
    jax.tree.map(lambda x, like: np.testing.assert_equal(x.sharding, like.sharding), run, state)
