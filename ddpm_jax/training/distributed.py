"""Runs of several processes, connected by JAX's distributed runtime. Process 0 writes; all stop at the same step."""

import os
import signal
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

HEARTBEAT_SECONDS = 30
"""Seconds without a heartbeat from a process after which the other processes end; JAX's default is 100."""
LONGEST_WAIT = 7 * 24 * 3600
"""Seconds that a process waits for the others at most; a process that died is noticed by its missing heartbeats."""


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None, detect: bool = True
) -> None:
    """Connects this process to the others of a command, given by the arguments or, with `detect`, found by JAX.

    JAX detects SLURM, Open MPI, Kubernetes and TPU pods. If it detects none of them, or if `num_processes` is 1, the
    process stays alone. Without arguments a process must not have used its devices yet. Raises ValueError if only some
    of the arguments are given, or for a `process_id` outside 0 .. num_processes - 1.
    """
    given = (coordinator, num_processes, process_id)
    if given == (None, 1, None) or jax.distributed.is_initialized() or not (detect or any(given)):
        return
    if any(each is not None for each in given) and None in given:
        raise ValueError("--coordinator, --num-processes and --process-id belong together: give all three or none")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id {process_id}: choose from 0 to {num_processes - 1}")
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except ValueError:  # an argument is missing that JAX did not detect either
        if coordinator is not None or "JAX_COORDINATOR_ADDRESS" in os.environ:
            raise


def end_at_sigterm() -> None:
    """Lets SIGTERM end this process, which JAX catches in a process that has joined others."""
    if not is_alone() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def check_same(command: str) -> None:
    """Raises ValueError in all processes unless `command` is the same text in all of them."""
    if not is_same(command):
        raise ValueError(
            "the processes were started with different options: give all of them the same, or --num-processes 1 to "
            "each that is to work alone"
        )


def is_leader() -> bool:
    """Whether this is process 0, which writes logs and pictures."""
    return jax.process_index() == 0


def is_alone() -> bool:
    """Whether the run has one process only."""
    return jax.process_count() == 1


def agree(ok: bool) -> bool:
    """Whether `ok` is true in all processes. Every process must call this function, and gets the same result."""
    return ok if is_alone() else bool(np.all(multihost_utils.process_allgather(np.array(ok))))


def from_leader(numbers: Sequence[int]) -> list[int]:
    """The `numbers` of process 0, each below 2^31. Every process must call this function, with any numbers."""
    if is_alone():
        return list(numbers)
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(numbers))))
    mine = np.resize(np.array(numbers, np.int32), count)
    return multihost_utils.broadcast_one_to_all(mine).tolist() if count else []


def is_same(text: str) -> bool:
    """Whether `text` is the same in all processes. Every process must call this function."""
    mine = [zlib.crc32(text.encode()) >> 1]
    return agree(mine == from_leader(mine))


def stop_requested(call: int) -> bool:
    """Whether all processes must stop now, because one of them received SIGTERM. All processes get the same result.

    Every process must call this once per call of the train step, with the same `call` = 1, 2, ..
    """
    return multihost_utils.reached_preemption_sync_point(call)


@contextmanager
def all_or_none(refusal: str, mistakes: bool = True) -> Iterator[None]:
    """A context that ends in an error in all processes if its body raises one in any of them.

        with all_or_none(f"process 0 cannot write {path}"):
            if is_leader():
                ...

    Where `mistakes` are expected these are ValueError and OSError, and the processes whose body raised nothing raise
    ValueError with the text `refusal`; elsewhere any Exception, and OSError. Every process must enter the context, and
    its body must not communicate. The bodies may take hours.
    """
    problem, expected = None, (ValueError, OSError) if mistakes else (Exception,)
    try:
        yield
    except expected as error:
        problem = error
    wait_for_all("all or none")
    if not agree(problem is None):
        raise problem or (ValueError if mistakes else OSError)(f"{refusal}: its message has the reason")


def wait_for_all(name: str) -> None:
    """Returns when every process has called this function. `name` appears in the message of an error.

    The processes may come hours apart; if one dies, the others end.
    """
    if not is_alone():
        everyone = set(range(jax.process_count()))
        multihost.sync_global_processes(name, timeout=LONGEST_WAIT, processes=everyone)
