"""The exported program draws the images of the run, in a process that has JAX alone."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from mistakes import fails

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.diffusion import samplers
from ddpm_jax.experiment import shapes
from ddpm_jax.networks import UNet
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.export import even_times, exported
from ddpm_jax.sampling import Run

ALONE = """
import sys

for name in ("ddpm_jax", "flax", "optax", "orbax"):
    sys.modules[name] = None  # an import of it would fail
import numpy as np
from jax import export

program = export.deserialize(open(sys.argv[1], "rb").read())
np.save(sys.argv[2], program.call(np.uint32(3), np.uint32(0), np.int32(6)))
"""


def near(a, b) -> bool:
    """Whether the images are the same up to a level, from another order of summation."""
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


def test_another_process_draws_the_same_images_with_jax_alone(finished, tmp_path, capsys):
    file, images = tmp_path / "sampler.stablehlo", tmp_path / "images.npy"
    assert main(["export", str(finished), str(file), "--num", "5"]) == 0
    assert "seed, first, steps -> 5 images, for cpu, cuda, tpu" in capsys.readouterr().out
    subprocess.run([sys.executable, "-c", ALONE, str(file), str(images)], check=True)
    run = ddpm_jax.load(finished)
    assert near(np.load(images), run.sampler(steps=6)(ddpm_jax.keys(3, 5)))


@pytest.mark.parametrize("name", [None, "heun"])
def test_steps_and_images_are_inputs(name, finished):
    run = ddpm_jax.load(finished)
    program, _ = exported(run, 3, name, ("cpu",))
    for steps, first in ((1, 0), (7, 2), (50, 0)):
        ours = run.sampler(steps=steps, sampler=name)(ddpm_jax.keys(9, 3, first))
        assert near(program.call(np.uint32(9), np.uint32(first), np.int32(steps)), ours)
    most = program.call(np.uint32(9), np.uint32(0), np.int32(999))
    assert near(most, program.call(np.uint32(9), np.uint32(0), np.int32(50)))


@pytest.mark.parametrize("T", [1, 7, 1000, 4000])
def test_the_times_are_those_of_even_spacing_for_every_number_of_steps(T):
    """Halves, as of 400 steps of 1000, are rounded alike."""
    times = jax.jit(even_times, static_argnums=0)
    for steps in {1, min(3, T), T, *range(1, T + 1, 37)}:
        found = np.asarray(times(T, steps))
        np.testing.assert_array_equal(found[: steps + 1], samplers.times(T, steps))
        assert not found[steps + 1 :].any()


@pytest.mark.slow  # compiles guided samplers
def test_labels_and_guidance_are_inputs():
    made = experiment_files.read(experiment_files.find("digits"))(timesteps=30, conditional=True)
    network = UNet(width=8, multipliers=(1,), num_blocks=1, attention=(), groups=4, num_classes=10)
    made, random = dataclasses.replace(made, network=network), np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.2, x.shape), x.dtype), shapes(made))
    run, labels = Run(made, params, 0), np.array([7, 1], np.int32)
    program, names = exported(run, 2, platforms=("cpu",))
    assert names == ("seed", "first", "steps", "labels", "guidance")
    given = np.uint32(0), np.uint32(0), np.int32(5), labels
    for guidance in (1.0, 3.0):
        ours = run.sampler(steps=5, guidance=guidance)(ddpm_jax.keys(0, 2), labels)
        assert near(program.call(*given, np.float32(guidance)), ours)
    assert not near(program.call(*given, np.float32(1.0)), program.call(*given, np.float32(3.0)))


def test_it_runs_on_the_platforms_that_it_names(finished):
    program = export.deserialize(exported(ddpm_jax.load(finished), 2, platforms=("cuda",))[0].serialize())
    assert program.platforms == ("cuda",)
    with pytest.raises(ValueError, match="platform"):
        program.call(np.uint32(0), np.uint32(0), np.int32(2))


def test_mistakes_are_one_line(finished, tmp_path, capsys):
    there = tmp_path / "there"
    there.write_text("mine")
    assert "exists" in fails(capsys, "export", str(finished), str(there))
    assert there.read_text() == "mine"
    assert "--num must be at least 1" in fails(capsys, "export", str(finished), str(tmp_path / "a"), "--num", "0")
    assert "nothing" in fails(capsys, "export", str(tmp_path / "nothing"), str(tmp_path / "a"))
    assert not Path(tmp_path / "a").exists()
