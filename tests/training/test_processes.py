"""Checkpoints of two processes: both take the same one, and only process 0 moves a damaged one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import errno, json, pathlib, shutil, sys
import numpy as np, orbax.checkpoint as ocp
from benchmarks import damage
from ddpm_jax.training import checkpoints, distributed, sharding

port, number, folder = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
distributed.join(f"localhost:{port}", 2, number)
mesh = sharding.make_mesh({"fsdp": 2})
like = sharding.with_shardings(damage.state(damage.NEW), mesh)
read, failures, broken = ocp.StandardCheckpointHandler.restore, 0, 1
if number != 0:
    del shutil.move  # process 1 must not need it

def restore(self, path, *args, **kwargs):
    global failures
    if number == broken and failures and f"/{damage.NEW}/" in str(path):
        failures -= 1
        raise OSError(errno.ETIMEDOUT, "the server does not answer")
    return read(self, path, *args, **kwargs)

ocp.StandardCheckpointHandler.restore = restore
for name, broken, failures in (("passing", 1, 1), ("staying_in_1", 1, 99), ("staying_in_0", 0, 99)):
    damage.write(folder / name / "checkpoints", mesh, True)
    with checkpoints.manager(folder / name / "checkpoints") as manager:
        found = checkpoints.restore(manager, like)
        step = int(found.step)
        right = damage.judged(found, step, damage.state(step)) != damage.WRONG
        checkpoints.save(manager, damage.on(mesh, damage.state(damage.NEW)))
    print(json.dumps([name, step, right, checkpoints.digest(found)]), flush=True)
"""


def test_what_one_process_cannot_read_no_process_takes(tmp_path):
    """An error that passes costs nothing; one that stays in either process costs one checkpoint, and none waits."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = os.environ | {
        "XLA_FLAGS": flags,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
    }
    command = [sys.executable, "-c", PROGRAM, str(port)]
    started = [
        subprocess.Popen([*command, str(number), str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True)
        for number in range(2)
    ]
    try:
        printed = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    one, other = ([json.loads(line) for line in text.splitlines() if line.startswith('["')] for text in printed)
    assert one == other
    assert [(name, step, right) for name, step, right, _ in one] == [
        ("passing", 8, True),
        ("staying_in_1", 4, True),
        ("staying_in_0", 4, True),
    ]
    moved = {folder.parent.name: len(list(folder.iterdir())) for folder in tmp_path.glob("*/damaged")}
    assert moved == {"staying_in_1": 1, "staying_in_0": 1}
    assert all((tmp_path / name / "checkpoints" / "8").exists() for name, *_ in one)  # saved, or saved again
