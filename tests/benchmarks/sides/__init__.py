"""The sides of `peers.py`: the same network and the same work on JAX and on PyTorch, each in a process of its own."""

import importlib
import multiprocessing
import os
import time
from typing import Any, NamedTuple, Protocol

CHAIN_TERMS = 10
"""Number of chain terms of the bound that are timed; the decoder term is one more call of the network."""
PAUSE = 0.1
"""Seconds before each measurement, in which the threads of the other side's last call come to rest."""
AT_LEAST = 0.5
"""Seconds of each measurement; shorter calls are repeated."""


class Work(NamedTuple):
    """What both sides compute."""

    config: dict[str, Any]
    """The config of diffusers' UNet2DModel."""
    batch: int
    steps: int
    """Number of steps of ancestral sampling; DDIM takes at most 50."""
    dtype: str
    compiled: bool
    """Whether PyTorch compiles the network."""


class Side(Protocol):
    """The calls that are timed, and a description. Each module of this package has one: the class Made(work)."""

    parameters: int
    """Number of parameters."""
    description: str
    """Versions and device."""

    def forward(self) -> Any:
        """One call of the network on a batch."""
        ...

    def train(self) -> Any:
        """One train step with Adam and EMA."""
        ...

    def sample_one(self) -> Any:
        """Ancestral sampling of one image."""
        ...

    def sample_batch(self) -> Any:
        """Ancestral sampling of a batch."""
        ...

    def ddim_batch(self) -> Any:
        """DDIM sampling of a batch."""
        ...

    def bits(self) -> Any:
        """Some terms of the bound for a batch."""
        ...

    def wait(self, result: Any) -> None:
        """Returns when the result of a call is computed."""
        ...

    def peak(self) -> int | None:
        """The most bytes of the accelerator's memory in use so far; None without an accelerator."""
        ...


class Worker:
    """A side in a process of its own."""

    def __init__(self, module: str, work: Work, environment: dict[str, str] | None = None):
        context = multiprocessing.get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, module, work, environment or {}, time.time()))
        self._process.start()

    def measure(self, what: str) -> Any:
        """The average seconds of a call of this name, over at least `AT_LEAST` seconds.

        Or "parameters", "flops" and "description" of the side; "first", the seconds from the start of the process to
        the end of a train step; "memory", the bytes of a train step. Raises the error of the side.
        """
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


def _serve(pipe: Any, module: str, work: Work, environment: dict[str, str], started: float) -> None:
    os.environ.update(environment)
    side = importlib.import_module(f"sides.{module}").Made(work)
    while True:
        what = pipe.recv()
        try:
            pipe.send(_answer(side, what, started))
        except Exception as error:  # raised again at the other end of the pipe
            pipe.send(RuntimeError(f"{module}, {what}: {error}"))


def _answer(side: Side, what: str, started: float) -> Any:
    if what == "memory":
        return _memory(side)
    if what in ("parameters", "flops", "description"):
        return getattr(side, what)
    if what == "first":
        side.wait(side.train())
        return time.time() - started
    time.sleep(PAUSE)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < AT_LEAST:
        side.wait(getattr(side, what)())
        calls += 1
    return (time.perf_counter() - start) / calls


def _memory(side: Side) -> int:
    """The most bytes allocated so far on an accelerator; without one, resident in the process during a train step."""
    for _ in range(2):
        side.wait(side.train())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak of the resident memory
    side.wait(side.train())
    with open("/proc/self/status") as file:
        resident = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    return side.peak() or resident * 1024
