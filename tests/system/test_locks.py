"""A lock keeps a second process out, and is gone with the process that held it, however that ended."""

import os
import subprocess
import sys
import time

import pytest

from ddpm_jax.system.locks import locked

HOLD = "import sys, pathlib, time; from ddpm_jax.system.locks import locked\nwith locked(pathlib.Path(sys.argv[1])):"
HOLD += " print('held', flush=True); time.sleep(60)"


def hold(path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_with_the_name_of_the_first(tmp_path):
    process = hold(tmp_path / ".lock")
    with (
        pytest.raises(ValueError, match=f"{tmp_path} is in use by process {process.pid} on"),
        locked(tmp_path / ".lock"),
    ):
        pytest.fail("two processes hold the lock")
    process.kill()
    process.wait()
    with locked(tmp_path / ".lock"):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_process_may_wait(tmp_path):
    process = hold(tmp_path / ".lock")
    script = HOLD.replace("with locked", "print('waits', flush=True)\nwith locked").replace("])):", "]), wait=True):")
    waiting = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None and waiting.stdout.readline() == "waits\n"
    time.sleep(0.2)
    assert waiting.poll() is None
    process.kill()
    assert waiting.stdout.readline() == "held\n"
    waiting.kill()
