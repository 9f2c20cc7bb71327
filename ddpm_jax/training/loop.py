"""The loop: advance, and now and then act. It knows neither data nor model."""

import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.training.state import TrainState
from ddpm_jax.training.step import Metrics

Advance = Callable[[TrainState, int], tuple[TrainState, Metrics]]
"""``(state, step)`` -> the state some steps later, and each step's metrics stacked, [count]."""


class Action(NamedTuple):
    """Something done each `every` steps and, if `at_end`, after the last one; 0 is never."""

    every: int
    do: Callable[[int, TrainState, dict[str, float]], None]
    """``do(step, state, averages)``: the averages are those of the metrics since this action's last turn."""
    at_end: bool = True


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the current step; a second Ctrl-C interrupts.

    Use as a context manager; `signal` is the number that arrived, or None.
    """

    def __init__(self):
        self.signal: int | None = None
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: Any) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def fit(
    state: TrainState, advance: Advance, num_steps: int, actions: Iterable[Action], stop: StopRequest
) -> TrainState:
    """Advances from where `state` stands to `num_steps`, or until `stop`; calls must end on the periods of the actions.

    One call runs ahead of the device, no more: the host prepares call n + 1 while the device computes call n.
    """
    timers = [(action, _Averages()) for action in actions if action.every]
    step, pending = int(state.step), None
    while step < num_steps and stop.signal is None:
        state, metrics = advance(state, step)
        jax.block_until_ready(pending)
        step, pending = step + len(metrics["loss"]), metrics
        for action, averages in timers:
            averages.add(metrics)
            if step % action.every == 0 or (action.at_end and step == num_steps):
                action.do(step, state, averages.take())
    return state


class _Averages:
    """Means over the steps since the last `take`, with the rate of steps; the metrics stay on the device until then."""

    def __init__(self):
        self._reset()

    def _reset(self) -> None:
        self._metrics, self._start = [], time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def take(self) -> dict[str, float]:
        rows = jax.device_get(self._metrics)
        values = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        rate = len(values["loss"]) / (time.perf_counter() - self._start)
        self._reset()
        return {name: float(value.mean()) for name, value in values.items()} | {"steps_per_second": rate}
