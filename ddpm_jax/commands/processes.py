"""The processes that carry out a command together."""

from dataclasses import replace
from typing import Any

from ddpm_jax.commands.screen import Screen
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import Processes
from ddpm_jax.training import distributed


def connect(request: Processes, own_process: bool, knobs: Any = None) -> Reporter:
    """Connects this process to the others of the request, and returns its reporter: the screen, for process 0.

    Other processes are looked for only if the command has a process of its own. Raises ValueError if the processes have
    different options or knobs.
    """
    distributed.join(request.coordinator, request.num_processes, request.process_id, detect=own_process)
    distributed.check_same(repr((replace(request, process_id=None), knobs)))
    return Screen() if distributed.is_leader() else Reporter()
