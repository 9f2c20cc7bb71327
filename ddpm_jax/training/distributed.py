"""Runs of several processes, connected by JAX's distributed runtime. Process 0 writes; all stop at the same step."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 30
"""Seconds without a heartbeat from a process after which the other processes end; JAX's default is 100."""


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Connects this process to the other processes of a run, given by the arguments or detected by JAX.

    JAX detects SLURM, Open MPI, Kubernetes and TPU pods. If it detects none of them, or has used its devices already,
    the process stays alone. Raises ValueError if only some of the arguments are given, or for a `process_id` outside
    0 .. num_processes - 1.
    """
    given = (coordinator, num_processes, process_id)
    if any(each is not None for each in given) and None in given:
        raise ValueError("--coordinator, --num-processes and --process-id belong together: give all three or none")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id {process_id}: choose from 0 to {num_processes - 1}")
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        alone = "coordinator_address should be defined", "must be called before", "only be called once"
        if coordinator is not None or not any(reason in str(error) for reason in alone):
            raise


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


def stop_requested(call: int) -> bool:
    """Whether all processes must stop now, because one of them received SIGTERM. All processes get the same result.

    Every process must call this once per call of the train step, with the same `call` = 1, 2, ..
    """
    return multihost_utils.reached_preemption_sync_point(call)
