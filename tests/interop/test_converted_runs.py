"""Runs that were converted: drawn, measured, resumed, fine-tuned, and converted back."""

import json

import jax
import numpy as np
import pytest
from interop.models import load, write
from PIL import Image

import ddpm_jax
from ddpm_jax.commands import main
from ddpm_jax.runs import workdir
from ddpm_jax.training.keys import keys


def test_a_run_written_out_and_read_again_draws_the_same_images(finished, tmp_path):
    assert main(["convert", str(finished), str(tmp_path / "theirs")]) == 0
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "run")]) == 0  # which records that it is the EMA
    one, other = (np.asarray(ddpm_jax.load(each).sampler()(keys(0, 4)), int) for each in (finished, tmp_path / "run"))
    assert np.abs(one - other).max() <= 1
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["weights"] == "ema"


def test_the_parameters_that_the_optimizer_updates_are_written_out_too(finished, tmp_path):
    assert main(["convert", str(finished), str(tmp_path / "theirs"), "--weights", "raw"]) == 0
    assert main(["convert", str(tmp_path / "theirs"), str(tmp_path / "run")]) == 0
    raw, ema, converted = ddpm_jax.load(finished, "raw"), ddpm_jax.load(finished), ddpm_jax.load(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, raw.params, converted.params)
    assert not np.array_equal(*(jax.tree.leaves(each.params)[0] for each in (raw, ema)))
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["weights"] == "raw"


@pytest.mark.slow  # compiles the sampler and the bound of another U-Net
def test_a_converted_run_is_sampled_and_measured(tmp_path, capsys):
    folder, pictures = write(tmp_path / "theirs", "grey", num_train_timesteps=30), tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        Image.new("L", (20, 12), 40 * number).save(pictures / f"{number}.png")
    options = ["--weights", "raw", "--folder-of-images", str(pictures), "--test-percent", "99"]
    assert main(["convert", str(folder), str(tmp_path / "run"), *options]) == 0
    assert main(["sample", str(tmp_path / "run"), "--num", "2", "--out", str(tmp_path / "two.npz")]) == 0
    assert np.load(tmp_path / "two.npz")["arr_0"].shape == (2, 12, 20, 1)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())[0]["weights"] == "raw"
    assert main(["convert", str(folder), str(tmp_path / "blind"), "--weights", "raw"]) == 0
    assert main(["evaluate", str(tmp_path / "blind")]) == 2
    assert "--data NAME or --folder-of-images" in capsys.readouterr().err


def test_a_converted_run_goes_on_by_its_own_copy_of_the_experiment(tmp_path):
    """Whatever its knobs are: none has to be given again."""
    load(write(tmp_path / "theirs"))
    own = tmp_path / "run" / "experiment.py"
    knobs = workdir.knobs_of(own)
    assert knobs["image_shape"] == (12, 20, 1) and not workdir.prepare(tmp_path / "run", own, knobs)


def test_a_class_that_nothing_tells_is_not_made_up(tmp_path, capsys):
    folder = write(tmp_path / "theirs", "classes")
    load(folder)
    label = ddpm_jax.load(tmp_path / "run").params["time"]["label"]["embedding"]
    assert label.shape[0] == 6 and not label[5].any() and label[4].any()  # "no label" adds nothing
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "unsorted.png")
    options = ["--weights", "raw", "--folder-of-images", str(tmp_path / "pictures"), "--test-percent", "100"]
    assert main(["convert", str(folder), str(tmp_path / "other"), *options]) == 0
    assert main(["evaluate", str(tmp_path / "other")]) == 2
    assert "each picture must be in the subfolder of its class" in capsys.readouterr().err


@pytest.mark.slow
def test_a_converted_model_is_fine_tuned_at_another_batch_size(tmp_path):
    pictures, tuned = tmp_path / "pictures", tmp_path / "tuned"
    pictures.mkdir()
    for number in range(10):
        Image.new("L", (20, 12), 25 * number).save(pictures / f"{number}.png")
    begun = load(write(tmp_path / "theirs", num_train_timesteps=20))
    own = ["--folder-of-images", str(pictures), "--batch-size", "8", "--learning-rate", "1e-3", "--warmup", "0"]
    own += ["--num-steps", "1", "--ema-decay", "0.5", "--test-percent", "20", "--sample-every", "0"]
    source = tmp_path / "run" / "experiment.py"
    assert main(["train", str(source), "--workdir", str(tuned), "--from", str(tmp_path / "run"), *own]) == 0
    leaves = [jax.tree.leaves(params) for params in (begun.params, ddpm_jax.load(tuned, "raw").params)]
    moved = max(float(np.abs(a - b).max()) for a, b in zip(*leaves, strict=True))
    assert 0 < moved < 1.01e-3  # the first step of Adam moves a parameter by the learning rate at most
    knobs = workdir.read_knobs(tuned)
    assert knobs["batch_size"] == 8 and knobs["image_shape"] == (12, 20, 1)
