"""The loop: nothing is done with a bad state, skipped steps are counted, and the speed is that of the steps."""

import math
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import EMA, Action, Diverged, StopRequest, create, fit, make_train_step
from ddpm_jax.training import loop as loop_module

GOOD, BAD_LOSS, BAD_GRADIENT = 1.0, 0.0, -1.0


def loss_fn(params, key, batch):
    """A loss that is NaN, or whose gradient is NaN, if the batch is BAD_LOSS or BAD_GRADIENT."""
    root = jnp.sqrt(jnp.where(batch == BAD_GRADIENT, 0.0, 1.0) * params)  # at 0 its derivative is infinite
    return jnp.where(batch == BAD_LOSS, jnp.nan, jnp.square(params).sum()) + 0 * root.sum()


def walk(batches, skip_nan=False, stop_after=None, calls=1, actions=True):
    """`fit` over these batches with an action every two steps: (the result or the error, what the action was given)."""
    stop, seen = StopRequest(), []
    step = jax.jit(make_train_step(loss_fn, optax.sgd(0.1), {EMA: 0.9}, jax.random.key(0), skip_nan=skip_nan))

    def advance(state, number):
        rows = []
        for batch in batches[number : number + calls]:
            state, metrics = step(state, jnp.float32(batch))
            rows.append(metrics)
        stop.signal = signal.SIGTERM if number + len(rows) == stop_after else None
        return state, {name: jnp.stack([row[name] for row in rows]) for name in rows[0]}

    def action(number, state, averages):
        assert np.isfinite(state.params).all() and np.isfinite(state.averages[EMA]).all()
        seen.append((number, averages.get("skipped"), averages["loss"]))

    try:
        state = create(jnp.ones(3), optax.sgd(0.1))
        return fit(state, advance, len(batches), [Action(2, action)] if actions else [], stop), seen
    except Diverged as error:
        return str(error), seen


BAD = [(BAD_LOSS, "the loss is nan"), (BAD_GRADIENT, "the norm of the gradient is nan")]


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("bad, message", BAD)
def test_a_bad_step_stops_the_run_before_an_action_that_is_due(bad, message, calls):
    """Such as a save: the parameters are not numbers after this step, though its loss may be."""
    printed, seen = walk([GOOD, GOOD, GOOD, bad, GOOD, GOOD], calls=calls)
    assert printed == f"{message} at step 4"
    assert [number for number, *_ in seen] == [2]


@pytest.mark.parametrize("actions", [True, False])
@pytest.mark.parametrize("bad, message", BAD)
def test_no_bad_state_is_returned(bad, message, actions):
    """Neither at the end nor by a run that is stopped: the caller saves the state. Without actions neither."""
    assert walk([GOOD, GOOD, bad], actions=actions)[0] == f"{message} at step 3"
    assert walk([GOOD, GOOD, bad, GOOD, GOOD], stop_after=3, actions=actions)[0] == f"{message} at step 3"
    state, _ = walk([GOOD] * 5, stop_after=3, actions=actions)
    assert int(state.step) == 3


def test_a_run_without_actions_is_checked_now_and_then(monkeypatch):
    monkeypatch.setattr(loop_module, "UNCHECKED_CALLS", 2)
    batches = [BAD_LOSS, *[GOOD] * 10]
    assert walk(batches, actions=False)[0] == "the loss is nan at step 1"


@pytest.mark.parametrize("bad", [BAD_LOSS, BAD_GRADIENT])
def test_bad_steps_can_be_skipped_and_are_counted(bad):
    state, seen = walk([GOOD, GOOD, GOOD, bad, bad, bad, GOOD, GOOD], skip_nan=True)
    plain, _ = walk([GOOD] * 5, skip_nan=True)
    assert int(state.step) == 8 and int(plain.step) == 5
    np.testing.assert_allclose(state.params, plain.params)
    np.testing.assert_allclose(state.averages[EMA], plain.averages[EMA])
    assert [(number, skipped) for number, skipped, _ in seen] == [(2, None), (4, 1.0), (6, 2.0), (8, None)]
    assert np.isfinite([loss for *_, loss in seen]).tolist() == [True, True, False, True]


def test_speed_is_that_of_the_steps_whatever_actions_take(monkeypatch):
    """A step takes a second here, a preview a minute, a save an hour."""
    now, rates = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    def advance(state, step):
        passes(1.0)
        return state, {"loss": jnp.zeros(1), "grad_norm": jnp.zeros(1)}

    actions = [
        Action(4, lambda step, state, averages: rates.append(averages["steps_per_second"])),
        Action(2, lambda *_: passes(60.0)),
        Action(3, lambda *_: passes(3600.0)),
    ]
    fit(create(jnp.ones(3), optax.sgd(0.1)), advance, 12, actions, StopRequest())
    assert rates == [1.0, 1.0, 1.0] and now[0] == 12 + 6 * 60 + 4 * 3600
    assert not any(map(math.isnan, rates))
