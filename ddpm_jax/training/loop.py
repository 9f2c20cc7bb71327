"""The training loop: calls the train step, and each action at its period. Independent of data and model."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.training import distributed
from ddpm_jax.training.state import TrainState
from ddpm_jax.training.step import Metrics

Advance = Callable[[TrainState, int], tuple[TrainState, Metrics]]
"""``advance(state, step)`` -> (state, metrics): the state after `count` >= 1 steps, and their metrics, each [count]."""


class Action(NamedTuple):
    """A function that `fit` calls every `every` steps and, if `at_end`, after the last step; with `every` 0, never."""

    every: int
    do: Callable[[int, TrainState, dict[str, float]], None]
    """``do(step, state, averages)``, with the means of the metrics since the last call, and "steps_per_second"."""
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
    """The loss is not finite."""


def fit(
    state: TrainState, advance: Advance, num_steps: int, actions: Iterable[Action], stop: StopRequest
) -> TrainState:
    """Trains from the step of `state` to `num_steps`, or until `stop`; returns the last state.

    Calls each action at its multiples of `every`, so no call of `advance` may pass over one. The host prepares one call
    while the device computes the previous one. Raises Diverged if a loss is not finite, skipped steps aside: when the
    next action is due, or before returning.
    """
    step, pending = int(state.step), None
    timers = [(action, _Averages(step)) for action in actions if action.every]
    while step < num_steps and not stop.reached():
        state, metrics = advance(state, step)
        jax.block_until_ready(pending)
        step, pending = step + len(metrics["loss"]), metrics
        for action, averages in timers:
            averages.add(metrics)
            if step % action.every == 0 or (action.at_end and step == num_steps):
                action.do(step, state, averages.take())
    for _, averages in timers:
        averages.check()
    return state


class _Averages:
    """Means of the metrics since the last `take`, and steps per second. The metrics stay on the device until `take`.

    Skipped steps are counted, and excluded from the means.
    """

    def __init__(self, step: int):
        self._reset(step)

    def _reset(self, step: int) -> None:
        self._step, self._metrics, self._start = step, [], time.perf_counter()

    def add(self, metrics: Metrics) -> None:
        self._metrics.append(metrics)

    def check(self) -> None:
        """Raises Diverged if a loss since the last `take` is not finite."""
        if self._metrics:
            self._checked()

    def _checked(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The metrics since the last `take`, and which steps were not skipped. Raises Diverged."""
        rows = jax.device_get(self._metrics)
        values = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        good = values.pop("skipped", np.zeros(len(values["loss"]))) == 0
        bad = np.flatnonzero(good & ~np.isfinite(values["loss"]))
        if bad.size:
            raise Diverged(f"the loss is {values['loss'][bad[0]]} at step {self._step + bad[0] + 1}")
        return values, good

    def take(self) -> dict[str, float]:
        values, good = self._checked()
        count = len(good)
        rate = count / (time.perf_counter() - self._start)
        self._reset(self._step + count)
        means = {name: float(value[good].mean()) if good.any() else math.nan for name, value in values.items()}
        return means | {"steps_per_second": rate} | ({} if good.all() else {"skipped": float((~good).sum())})
