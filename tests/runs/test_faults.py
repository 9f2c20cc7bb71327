"""What goes wrong on a pod, tried on a tiny run: kills, other devices, preemption, damage, full disks."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddpm_jax
from ddpm_jax import figures
from ddpm_jax.data import flip
from ddpm_jax.diffusion import gaussian, schedules
from ddpm_jax.diffusion.losses.reductions import diffuse
from ddpm_jax.experiment import Every
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs import train as training
from ddpm_jax.training import Diverged, Log, StopRequest, checkpoints, create, sharding

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def run(workdir: Path, *options: str, devices: int = 1) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    command = [sys.executable, "-m", "ddpm_jax", "train", str(TINY), "--workdir", str(workdir), *options]
    environment = os.environ | {"XLA_FLAGS": flags}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen, start: str) -> None:
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(process.stderr.read())


def rows(workdir: Path) -> list[tuple[int, float]]:
    printed = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in printed]


@pytest.mark.slow
def test_killed_at_twenty_random_moments_is_never_killed(tmp_path):
    """A save every six steps, written in the background: many kills fall into one."""
    options = ("--num-steps", "600", "--save-every", "6")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, *options).communicate() and (whole / "evaluation.json").exists()
    draw = random.Random(0)
    for _ in range(20):
        process = run(broken, *options)
        wait_for(process, "step ")
        time.sleep(draw.uniform(0, 3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # it had not come to the end
    assert run(broken, *options).communicate() and (broken / "evaluation.json").exists()
    one, other = ddpm_jax.load(whole), ddpm_jax.load(broken)
    assert one.step == other.step == 600
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert rows(whole) == rows(broken)


@pytest.mark.slow
def test_one_device_then_eight_then_two(finished, tmp_path):
    """Preempted twice, and given other devices each time: the same run, but for the order of sums."""
    folder = tmp_path / "run"
    for devices, step in ((1, 4), (8, 8)):
        process = run(folder, devices=devices)
        wait_for(process, f"step {step}/")
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 128 + signal.SIGTERM
    process = run(folder, devices=2)
    assert "resuming" in process.communicate()[0] and process.returncode == 0
    one, other = ddpm_jax.load(finished), ddpm_jax.load(folder)
    assert one.step == other.step == 12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one.params, other.params)


def test_draws_do_not_know_the_mesh():
    """t, noise and flips of a batch over eight devices are, to the bit, those on one."""
    process = gaussian.process(schedules.linear(1000))

    def draws(key, images):
        key_flip, key_loss = jax.random.split(key)
        return flip(key_flip, images), diffuse(key_loss, process, images)

    images = jnp.arange(16 * 8 * 8, dtype=jnp.float32).reshape(16, 8, 8, 1)
    alone = jax.jit(draws)(jax.random.key(0), images)
    for sizes in ({"data": 8}, {"data": 2, "fsdp": 4}):
        place = sharding.batch_sharding(sharding.make_mesh(sizes))
        spread = jax.jit(draws)(jax.random.key(0), sharding.to_devices(images, place))
        jax.tree.map(np.testing.assert_array_equal, alone, spread)


@pytest.mark.slow  # compiles the sampler for two meshes
def test_a_preview_of_parameters_split_over_fsdp_is_that_of_one_device(tmp_path, monkeypatch, capfd):
    """And XLA does not warn that it had to rematerialize what it had split."""
    monkeypatch.setattr(training, "PREVIEW_IMAGES", 8)
    experiment = experiment_files.read(TINY)(timesteps=3, width=48)
    drawn = []
    monkeypatch.setattr(figures, "save_png", lambda path, picture: drawn.append(picture))
    for mesh in (sharding.make_mesh({"fsdp": 2}), sharding.make_mesh(devices=jax.devices()[:1])):
        state = training.initial_state(experiment, mesh)
        training.preview(experiment, mesh, Log(None, 0), tmp_path / "samples")(1, state, {})
    split, alone = (np.asarray(picture, int) for picture in drawn)
    assert alone.std() > 10 and np.abs(split - alone).max() <= 1  # but for the order of sums
    assert "rematerialization" not in capfd.readouterr().err


def test_a_gradient_that_is_no_number_is_never_saved(tmp_path):
    """Its step saves, and is the last one; its loss is a number."""

    def broken(loss_fn):
        gradient = jax.value_and_grad(loss_fn)

        def value_and_grad(*args):
            loss, grads = gradient(*args)
            return loss, jax.tree.map(lambda x: x * jnp.nan, grads)

        return value_and_grad

    every = Every(log=0, sample=0, save=1)
    roll = experiment_files.read(experiment_files.find("sohl_dickstein_2015/swiss_roll"))(num_steps=1)
    experiment = dataclasses.replace(roll, gradient=broken, every=every)
    with pytest.raises(Diverged, match=r"gradient is nan at step 1: no checkpoint was saved yet") as raised:
        training.train(experiment, tmp_path, StopRequest())
    assert "\n" not in str(raised.value)
    with checkpoints.reader(tmp_path / "checkpoints") as manager:
        assert not manager.all_steps()
    assert not list((tmp_path / "checkpoints").iterdir())


def garbled(path: Path) -> None:
    path.write_bytes(bytes(byte ^ 0xA5 for byte in path.read_bytes()))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def state_of(step):
    return create({"w": jnp.full(30_000, float(step))}, optax.sgd(0.1))._replace(step=jnp.int32(step))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2. Not to be written to."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    with checkpoints.manager(folder) as manager:
        for step in (1, 2):
            checkpoints.save(manager, state_of(step))
    return folder


@pytest.mark.parametrize("harm", [garbled, truncated, Path.unlink])
@pytest.mark.parametrize("which", range(4))
def test_whichever_file_of_the_newest_checkpoint_is_harmed_a_good_one_is_read(two, tmp_path, monkeypatch, harm, which):
    """The newest itself where the file does not matter, else the one before; never an error, never wrong numbers."""
    monkeypatch.setattr(checkpoints, "PAUSES", ())
    folder = shutil.copytree(two, tmp_path / "checkpoints")
    files = sorted(path for path in (folder / "2").rglob("*") if path.is_file())
    harm(files[which * len(files) // 4])
    with checkpoints.manager(folder) as manager:
        found = checkpoints.restore(manager, state_of(0))
    step = int(found.step)
    assert step in (1, 2)
    np.testing.assert_array_equal(found.params["w"], float(step))
    assert (folder / "1").exists()


def test_a_checkpoint_of_another_shape_is_told_and_left(tmp_path):
    folder = tmp_path / "checkpoints"
    with checkpoints.manager(folder) as manager:
        checkpoints.save(manager, create({"w": jnp.ones((3, 4))}, optax.sgd(0.1))._replace(step=jnp.int32(5)))
    with (
        checkpoints.manager(folder) as manager,
        pytest.raises(ValueError, match=r"none of the checkpoints in .* can be read"),
    ):
        checkpoints.restore(manager, create({"w": jnp.ones((4, 4))}, optax.sgd(0.1)))
    assert (folder / "5").exists() and not (tmp_path / "damaged").exists()


@contextlib.contextmanager
def disk(folder: Path, size: str):
    """A small file system of its own, where this may be made."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_was_saved(tmp_path):
    folder = tmp_path / "disk"
    with disk(folder, "2500k"):
        process = run(folder / "run", "--num-steps", "60")
        _, errors = process.communicate()
        assert process.returncode == 1
        (line,) = errors.strip().splitlines()
        assert "no space left on device" in line
        good = ddpm_jax.load(folder / "run").step
        assert good >= 4
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        again = run(folder / "run", "--num-steps", "60")
        output, errors = again.communicate()
        assert again.returncode == 0, errors
        assert f"step {good + 2}/60" in output and f"step {good}/60" not in output
        assert ddpm_jax.load(folder / "run").step == 60


@pytest.mark.slow
def test_a_read_only_folder_is_told(tmp_path):
    folder = tmp_path / "disk"
    with disk(folder, "50m"):
        process = run(folder / "run")
        wait_for(process, "step 6/")
        process.send_signal(signal.SIGTERM)
        process.communicate()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        process = run(folder / "run")
        _, errors = process.communicate()
        assert process.returncode == 1
        (line,) = errors.strip().splitlines()
        assert "read-only" in line.lower()
        assert ddpm_jax.load(folder / "run").step >= 6
