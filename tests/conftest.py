"""What every test runs under: eight fake CPU devices, JAX's strict modes, and array types checked at run time."""

import atexit
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Before the first import of jax, which reads it once. Appended, so that the caller's own flags stay.
# Nearly all that the tests compute is computed once: there, optimising it takes longer than running it unoptimised.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
).strip()
# Even a single operation is loaded four times as fast as it is compiled.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # one for the session: its workers and their subprocesses inherit it
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ddpm_jax-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import jaxtyping
import pytest

jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jaxtyping.install_import_hook("ddpm_jax", "beartype.beartype")


LONGEST = (
    "test_readme.py",
    "test_processes.py",
    "test_journey.py",
    "test_resume.py",
    "test_averages.py",
    "test_plan.py",
)


def pytest_collection_modifyitems(items):
    """The longest files first: a file stays with one worker, and at the end the other would wait for it."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish():
    """The modules and the tests are never garbage: they are not searched for it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session")
def train():
    """`train(workdir, *knobs)` starts the tiny run as a user does, on one device as a laptop has: a Popen."""
    from children import environment  # not before the import hook

    file = Path(__file__).parent / "experiments" / "tiny.py"

    def start(workdir: Path, *knobs: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "ddpm_jax", "train", str(file), "--workdir", str(workdir), *knobs]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """The workdir of the tiny run, never stopped, made once for all workers. Not to be written to."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    workdir, printed = shared / "finished", shared / "finished.txt"
    try:
        (shared / "finishing").mkdir()  # the first worker that comes by
    except FileExistsError:
        while not printed.exists():
            time.sleep(0.2)
    else:
        run = train(workdir)
        _, errors = run.communicate()
        printed.with_suffix(".part").write_text("" if run.returncode == 0 else errors or "failed")
        printed.with_suffix(".part").rename(printed)
    assert not printed.read_text(), printed.read_text()
    return workdir


@pytest.fixture
def x64():
    """Runs the test in float64, for laws that hold to the last digits."""
    with jax.enable_x64(True):
        yield
