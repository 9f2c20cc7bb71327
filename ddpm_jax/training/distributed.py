"""Several processes as one run, by JAX's own runtime: found or told, led by process 0, stopped together."""

import jax
from jax.experimental import multihost_utils

HEARTBEAT_SECONDS = 30
"""How long a process may be silent before the others give up; JAX's own default is 100."""


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of a run: of the one it is told, or of what SLURM, Open MPI, Kubernetes or a TPU pod say.

    Without any of these it stays alone, as does a program that has used its devices already. Raises ValueError where
    only some of the three are told.
    """
    told = (coordinator, num_processes, process_id)
    if any(each is not None for each in told) and None in told:
        raise ValueError("--coordinator, --num-processes and --process-id belong together: give all three or none")
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"--process-id {process_id}: choose from 0 to {num_processes - 1}")
    try:
        jax.distributed.initialize(*told, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError) as error:
        alone = "coordinator_address should be defined", "must be called before", "only be called once"
        if coordinator is not None or not any(reason in str(error) for reason in alone):
            raise


def leads() -> bool:
    """Whether this is the process that writes logs and pictures."""
    return jax.process_index() == 0


def alone() -> bool:
    """Whether the run is of one process."""
    return jax.process_count() == 1


def wait(name: str) -> None:
    """Until all processes have come here."""
    if not alone():
        multihost_utils.sync_global_devices(name)


def told_to_stop(call: int) -> bool:
    """Whether all processes stop at this call, since one of them got SIGTERM: the same for all.

    Each has to ask at every call, and number its calls alike.
    """
    return multihost_utils.reached_preemption_sync_point(call)
