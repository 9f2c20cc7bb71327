"""The sides of `peers.py`: the same network and the same work on JAX and on PyTorch, each in a process of its own."""

import importlib
import multiprocessing
import os
import time
from typing import Any, NamedTuple, Protocol

CHAIN_TERMS = 10
"""Of the bound that is timed; the decoder is one more call of the network."""
PAUSE = 0.1
"""Seconds before each turn: the threads of the other side's last call spin on for a while."""
AT_LEAST = 0.5
"""Seconds of each turn, which is of several calls where one takes less."""


class Work(NamedTuple):
    """What both sides are asked to do."""

    config: dict[str, Any]
    """Of diffusers' UNet2DModel."""
    batch: int
    steps: int
    """Of ancestral sampling; DDIM takes at most 50."""
    dtype: str
    compiled: bool


class Side(Protocol):
    """What is timed, and what is printed of it. Each module here has one, made from the Work and called Made."""

    parameters: int
    printed: str
    """Versions and device."""

    def forward(self) -> Any: ...
    def train(self) -> Any: ...
    def sample_one(self) -> Any: ...
    def sample_batch(self) -> Any: ...
    def ddim_batch(self) -> Any: ...
    def bits(self) -> Any: ...

    def wait(self, result: Any) -> None:
        """Returns when the result of a call is there."""
        ...

    def peak(self) -> int | None:
        """Bytes of the accelerator's memory that were in use at most; None where that is the host's."""
        ...


class Worker:
    """A side in a process of its own."""

    def __init__(self, module: str, work: Work, environment: dict[str, str] | None = None):
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, module, work, environment or {}, time.time()))
        self._process.start()

    def ask(self, what: str) -> Any:
        """The seconds of a call, on average over a turn; what the side tells; the seconds from the start of the process
        to the end of the "first" step; the "memory" of a step."""
        self._pipe.send(what)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Any, module: str, work: Work, environment: dict[str, str], began: float) -> None:
    os.environ.update(environment)
    side = importlib.import_module(f"sides.{module}").Made(work)
    while True:
        what = pipe.recv()
        try:
            pipe.send(_answer(side, what, began))
        except Exception as error:  # printed on the other end of the pipe
            pipe.send(RuntimeError(f"{module}, {what}: {error}"))


def _answer(side: Side, what: str, began: float) -> Any:
    if what == "memory":
        return _memory(side)
    if what in ("parameters", "flops", "printed"):
        return getattr(side, what)
    if what == "first":
        side.wait(side.train())
        return time.time() - began
    time.sleep(PAUSE)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < AT_LEAST:
        side.wait(getattr(side, what)())
        calls += 1
    return (time.perf_counter() - start) / calls


def _memory(side: Side) -> int:
    """The most bytes allocated so far on an accelerator; resident on a host of the process during a warm train step."""
    for _ in range(2):
        side.wait(side.train())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # from here on the peak is counted anew
    side.wait(side.train())
    with open("/proc/self/status") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    return side.peak() or resident * 1024
