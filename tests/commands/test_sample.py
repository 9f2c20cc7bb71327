"""`ddpm-jax sample`: what it writes, and what it never replaces."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import fails
from PIL import Image

from ddpm_jax import figures
from ddpm_jax.commands import main
from ddpm_jax.experiment import shapes
from ddpm_jax.runs import experiment_files, workdir
from ddpm_jax.training import checkpoints, create


def sample(workdir: Path, *options: str) -> int:
    return main(["sample", str(workdir), *options])


def test_samples_are_the_same_twice_and_whatever_their_number(finished, tmp_path):
    assert sample(finished, "--num", "20", "--out", str(tmp_path / "a.npz")) == 0
    assert sample(finished, "--num", "5", "--out", str(tmp_path / "b.npz")) == 0
    many, few = (np.load(tmp_path / name)["arr_0"] for name in ("a.npz", "b.npz"))
    assert many.shape == (20, 8, 8, 1) and many.dtype == np.uint8
    np.testing.assert_array_equal(many[:5], few)
    assert not np.array_equal(many[0], many[1])


def test_a_picture_is_the_same_to_the_byte_and_never_overwritten(finished, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert sample(finished, "--num", "4", "--out", str(out)) == 0
    first = out.read_bytes()
    assert sample(finished, "--num", "4", "--out", str(tmp_path / "again.png")) == 0
    assert (tmp_path / "again.png").read_bytes() == first
    assert sample(finished, "--num", "4", "--out", str(out)) == 0
    assert "already" in capsys.readouterr().out
    assert sample(finished, "--num", "4", "--seed", "1", "--out", str(out)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_bytes() == first
    assert sample(finished, "--num", "4", "--seed", "1", "--out", str(out), "--overwrite") == 0
    assert out.read_bytes() != first


def test_a_folder_of_pictures(finished, tmp_path):
    assert sample(finished, "--num", "3", "--sampler", "ddim", "--steps", "5", "--out", str(tmp_path / "images")) == 0
    pictures = sorted((tmp_path / "images").iterdir())
    assert [path.name for path in pictures] == ["000000.png", "000001.png", "000002.png"]
    assert Image.open(pictures[0]).size == (8, 8)


LEARNED = """
import dataclasses
from pathlib import Path, PosixPath
from ddpm_jax.diffusion import parameterizations
from ddpm_jax.networks import UNet
from ddpm_jax.runs import experiment_files

def experiment(*, num_steps: int = 1):
    tiny = experiment_files.read({tiny!r})(num_steps=num_steps)
    learned = parameterizations.learned(tiny.process, tiny.parameterization)
    return dataclasses.replace(tiny, parameterization=learned, network=tiny.network.clone(out_channels=2))
"""


def test_a_learned_variance_is_sampled_in_all_steps_or_by_ddim(tmp_path, capsys):
    file, run = tmp_path / "learned.py", tmp_path / "run"
    file.write_text(LEARNED.format(tiny=Path(__file__).parents[1] / "experiments" / "tiny.py"))
    make = experiment_files.read(file)
    workdir.prepare(run, file, experiment_files.defaults(make))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes(make()))
    with checkpoints.manager(run / "checkpoints") as manager:
        checkpoints.save(manager, create(params, make().optimizer))
    out = tmp_path / "strides.png"
    message = fails(capsys, "sample", str(run), "--num", "1", "--steps", "10", "--out", str(out))
    assert "--steps 10" in message and "take all 50 steps, or choose --variance, or --sampler ddim" in message
    assert not out.exists() and not (run / "samples").exists()
    assert sample(run, "--num", "1", "--steps", "10", "--sampler", "ddim", "--out", str(out)) == 0


def test_guidance_without_classes_is_refused(finished, tmp_path, capsys):
    message = fails(capsys, "sample", str(finished), "--guidance", "2", "--out", str(tmp_path / "a.png"))
    assert "this run is not class-conditional" in message and not (tmp_path / "a.png").exists()


def test_a_run_that_guides_itself_changes_nothing_but_the_record(finished, tmp_path, capsys):
    plain, guided = tmp_path / "plain.npz", tmp_path / "guided.npz"
    few = ("--steps", "6", "--num", "3", "--out")
    by_itself = ("--guidance", "2", "--guidance-interval", "0.3", "5", "--guide", str(finished))
    assert sample(finished, *few, str(plain)) == 0 and sample(finished, *few, str(guided), *by_itself) == 0
    images, same = (np.load(path)["arr_0"].astype(int) for path in (guided, plain))
    assert np.abs(images - same).max() <= 1
    kept = figures.provenance_of(guided)
    assert kept["guidance_interval"] == [0.3, 5.0] and kept["guide"]["parameters"] == kept["parameters"]
    assert "needs the scale" in fails(capsys, "sample", str(finished), "--guide", str(finished), *few, str(guided))
    assert "is not a workdir" in fails(capsys, "sample", str(finished), "--guidance", "2", "--guide", str(tmp_path))


def test_a_solver_draws_with_few_steps(finished, tmp_path):
    out = tmp_path / "few.npz"
    few = ("--sampler", "dpm++2m", "--spacing", "karras", "--steps", "6", "--num", "3", "--out", str(out))
    assert sample(finished, *few) == 0
    assert np.load(out)["arr_0"].shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    "name, message", [("mine", "other things"), ("mine.png", "is a folder"), ("empty.npz", "exists")]
)
def test_what_is_not_ours_is_never_replaced(finished, tmp_path, capsys, name, message):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    (tmp_path / "mine.png").mkdir()
    (tmp_path / "empty.npz").touch()
    overwrite = [] if name == "empty.npz" else ["--overwrite"]
    assert message in fails(capsys, "sample", str(finished), "--num", "1", "--out", str(tmp_path / name), *overwrite)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years"


def test_the_parameters_that_the_optimizer_updates_draw_other_images(finished, tmp_path, capsys):
    """To the file of the averaged ones they are not drawn: it is kept, and the command fails."""
    out = str(tmp_path / "grid.png")
    assert sample(finished, "--num", "4", "--out", out) == 0
    assert "exists and holds something else" in fails(
        capsys, "sample", str(finished), "--num", "4", "--weights", "raw", "--out", out
    )
    assert sample(finished, "--num", "4", "--weights", "raw", "--out", out, "--overwrite") == 0
