"""Locks that keep two processes from writing to one folder."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Holds the lock of the file `path`, which is created in an existing folder and stays.

    The system releases the lock when the process ends, however it ends. If another process holds it, waits, or without
    `wait` raises ValueError naming that process. A file system without locks is used without one.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            message = f"{path.parent} is in use by {owner}: wait for it, end it, or choose another name"
            raise ValueError(message) from None
        except OSError:  # such as a folder of cloud storage
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
