"""The training loop: calls the train step, and each action at its period. Independent of data and model."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.training import distributed
from ddpm_jax.training.state import TrainState
from ddpm_jax.training.step import Metrics

UNCHECKED_CALLS = 1000
"""Calls of the train step after which their metrics are checked, if no action does so earlier."""
Advance = Callable[[TrainState, int], tuple[TrainState, Metrics]]
"""``advance(state, step)`` -> (state, metrics): the state after `count` >= 1 steps, and their metrics, each [count]."""


class Action(NamedTuple):
    """A function that `fit` calls every `every` steps and, if `at_end`, after the last step; with `every` 0, never."""

    every: int
    do: Callable[[int, TrainState, dict[str, float]], None]
    """``do(step, state, averages)``, with the means of the metrics since the last call, and "steps_per_second".

    The time that actions take does not count as time of steps.
    """
    at_end: bool = True


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step; a second Ctrl-C interrupts.

    With several processes, all stop at the same step, whichever received the signal. Use as a context manager; the
    attribute `signal` is the number of the signal, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous, self._calls = {}, 0

    def __enter__(self) -> "StopRequest":
        # with several processes JAX's runtime handles SIGTERM itself, to inform the others
        listen = (signal.SIGINT, signal.SIGTERM) if distributed.is_alone() else (signal.SIGINT,)
        for number in listen:
            self._previous[number] = signal.signal(number, self._request)
        return self

    def reached(self) -> bool:
        """Whether to stop now. Every process must call this once per call of the train step."""
        if distributed.is_alone():
            return self.signal is not None
        self._calls += 1
        if distributed.stop_requested(self._calls):
            self.signal = self.signal or signal.SIGTERM
            return True
        return False

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if not distributed.is_alone():
            os.kill(os.getpid(), signal.SIGTERM)


class Diverged(ArithmeticError):
    """The loss or the gradient of a step is not finite."""


def fit(
    state: TrainState, advance: Advance, num_steps: int, actions: Iterable[Action], stop: StopRequest
) -> TrainState:
    """Trains from the step of `state` to `num_steps`, or until `stop`; returns the last state.

    Calls each action at its multiples of `every`, so no call of `advance` may pass over one. The host prepares one call
    while the device computes the previous one. Raises Diverged if the loss or the gradient norm of a step is not
    finite, skipped steps aside: before an action is given such a state, and before it would be returned.
    """
    step, pending, clock = int(state.step), None, _Clock()
    timers = [(action, _Averages(step, clock)) for action in actions if action.every]
    unchecked = _Averages(step, clock)
    while step < num_steps and not stop.reached():
        state, metrics = advance(state, step)
        jax.block_until_ready(pending)
        step, pending = step + len(metrics["loss"]), metrics
        unchecked.add(metrics)
        for action, averages in timers:
            averages.add(metrics)
            if step % action.every == 0 or (action.at_end and step == num_steps):
                means = averages.take()
                with clock.paused():
                    action.do(step, state, means)
        if len(unchecked) == UNCHECKED_CALLS:
            unchecked.take()
    unchecked.take()
    return state


class _Clock:
    """A clock that can be paused."""

    def __init__(self):
        self._pauses = 0.0

    def seconds(self) -> float:
        """The time outside pauses, from an arbitrary start."""
        return time.perf_counter() - self._pauses

    @contextmanager
    def paused(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._pauses += time.perf_counter() - start


class _Averages:
    """Means of the metrics since the last `take`, and steps per second. The metrics stay on the device until `take`.

    Skipped steps are counted, and excluded from the means.
    """

    def __init__(self, step: int, clock: _Clock):
        self._clock = clock
        self._reset(step)

    def _reset(self, step: int) -> None:
        self._step, self._metrics, self._start = step, [], self._clock.seconds()

    def __len__(self) -> int:
        """The number of calls since the last `take`."""
        return len(self._metrics)

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def take(self) -> dict[str, float]:
        """Returns the means. Raises Diverged if a step that was not skipped is bad."""
        if not self._metrics:
            return {}
        rows = jax.device_get(self._metrics)
        values = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        good = values.pop("skipped", np.zeros(len(values["loss"]))) == 0
        self._check(values, good)
        count = len(good)
        rate = count / (self._clock.seconds() - self._start)
        self._reset(self._step + count)
        means = {name: float(value[good].mean()) if good.any() else math.nan for name, value in values.items()}
        return means | {"steps_per_second": rate} | ({} if good.all() else {"skipped": float((~good).sum())})

    def _check(self, values: dict[str, np.ndarray], good: np.ndarray) -> None:
        for name, meaning in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            bad = np.flatnonzero(good & ~np.isfinite(values.get(name, 0.0)))
            if bad.size:
                raise Diverged(f"the {meaning} is {values[name][bad[0]]} at step {self._step + bad[0] + 1}")
