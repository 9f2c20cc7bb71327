"""The settings for CPUs, each in a process of its own: XLA reads them once."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ddpm_jax.system import cpu

CONVOLVE = """
import jax
from ddpm_jax.system import cpu
cpu.use_fast_libraries()
cpu.keep_memory()
returned = []
cpu.return_memory = lambda: returned.append(True)
import numpy as np
x, kernel = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(4, 8, 8, 32), (3, 3, 32, 64)]))
step = jax.jit(lambda kernel: jax.lax.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME"))
found = step(kernel)[:, :, 1:-1, 1:-1].transpose(0, 2, 3, 1)
wanted = sum(x[:, i : i + 6, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3))
np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
print("onednn" in step.lower(kernel).compile().as_text(), jax.config.jax_enable_compilation_cache, any(returned))
"""


@pytest.fixture
def at(monkeypatch):
    """`at(version, flags)` is a PC without accelerators: configured, its flags, and whether programs are kept."""

    def configured(version: str, flags: str = "", machine: str = "x86_64") -> tuple[str, bool]:
        monkeypatch.setenv("XLA_FLAGS", flags)
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")
        monkeypatch.setattr(cpu, "version", lambda _: version)
        monkeypatch.setattr(cpu, "sys", SimpleNamespace(modules={}))
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        cpu.use_fast_libraries()
        return os.environ["XLA_FLAGS"], os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "true"

    return configured


def test_this_version_of_jax_knows_the_flags_convolves_as_before_and_announces_compilations():
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CONVOLVE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with_onednn = cpu.ONEDNN in cpu.FLAGS.get(".".join(cpu.version("jaxlib").split(".")[:2]), ())
    with_onednn = with_onednn and os.uname().machine == "x86_64"
    assert done.stdout.split() == [str(with_onednn), str(not with_onednn), "True"]


def test_flags_go_by_the_version_and_programs_with_onednn_are_not_kept(at):
    assert at("0.10.2", "--mine") == (f"--mine {cpu.YNNPACK_SUMS_ONLY}", True)
    assert at("0.12.0.1") == (f"{cpu.YNNPACK_SUMS_ONLY} {cpu.ONEDNN}", False)
    assert at("0.99.0", "--mine") == at("0.12.0.1", "--mine", machine="aarch64") == ("--mine", True)


@pytest.mark.parametrize("mine", [cpu.YNNPACK_SUMS_ONLY, cpu.ONEDNN.replace("true", "false")])
def test_what_the_user_says_of_the_libraries_holds(at, mine):
    assert at("0.12.0.1", mine) == (mine, True)


@pytest.mark.parametrize("mine", [cpu.ONEDNN, cpu.ONEDNN.removesuffix("=true")])
def test_programs_with_onednn_are_not_kept_whoever_asked_for_it(at, mine):
    assert at("0.99.0", mine) == (mine, False)


def test_nothing_changes_where_there_may_be_an_accelerator(at, monkeypatch):
    monkeypatch.setattr(cpu, "_may_have_accelerator", lambda: True)
    assert at("0.12.0.1") == ("", True)


@pytest.mark.parametrize("platforms, elsewhere", [("", True), ("cuda,cpu", True), ("cpu", False)])
def test_an_accelerator_is_expected_where_jax_has_a_plugin(monkeypatch, platforms, elsewhere):
    monkeypatch.setattr(cpu, "entry_points", lambda group: ["cuda"])
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert cpu._may_have_accelerator() is elsewhere


@pytest.mark.slow
def test_the_memory_of_a_step_is_used_again_by_the_next(tmp_path):
    """400 steps with blocks of 4 MB: 5 GB if none of them is used again or returned."""
    experiment = ["sohl_dickstein_2015/swiss_roll", "--no-train-betas", "--hidden", "512", "--num-steps", "400"]
    command = ["train", *experiment, "--workdir"]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    run = subprocess.Popen(
        [sys.executable, "-m", "ddpm_jax", *command, str(tmp_path / "run")], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(run.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0 and used.ru_maxrss < 2 * 2**20
