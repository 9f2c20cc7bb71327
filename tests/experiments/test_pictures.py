"""`pictures`: from a folder of one's own to a trained network, and what is refused before any work is done."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data import odd_pictures
from flax import linen as nn
from PIL import Image

from ddpm_jax.commands import main
from ddpm_jax.diffusion import losses
from ddpm_jax.experiment import Experiment, shapes
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.step_program import make_mesh, make_program
from ddpm_jax.runs.train import check, train
from ddpm_jax.training import StopRequest

DOCS = Path(__file__).parents[2] / "docs" / "own_pictures.md"
pictures = experiment_files.read(experiment_files.find("pictures"))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty current folder, and a cache folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def deepest(experiment: Experiment) -> int:
    return experiment.data.image_shape[0] >> (len(experiment.network.multipliers) - 1)


@pytest.mark.parametrize("size", [8, 12, 16, 32, 48, 64, 96, 128, 192, 256])
def test_the_network_fits_the_size(size):
    """Its lowest resolution is neither a single pixel nor large, and there is attention at most at 16x16."""
    experiment = pictures(size=size, width=32)
    check_network(experiment)
    assert 2 <= deepest(experiment) <= 8
    (attention,) = experiment.network.attention
    assert attention <= 16 and attention in [size >> level for level in range(len(experiment.network.multipliers))]


def test_at_32_and_256_it_is_the_network_of_ho_2020():
    for size, name in ((32, "ho_2020/cifar10"), (256, "ho_2020/celeba_hq")):
        paper = experiment_files.read(experiment_files.find(name))()
        ours = pictures(size=size, dropout=paper.network.dropout)
        assert jax.tree.map(lambda x: x.shape, shapes(ours)) == jax.tree.map(lambda x: x.shape, shapes(paper))


@pytest.mark.parametrize("size, halvings, near", [(60, 3, (56, 64)), (100, 4, (96, 112)), (33, 3, (32, 40))])
def test_a_size_that_cannot_be_halved_is_refused_with_the_nearest_that_can(size, halvings, near):
    message = f"--size {size} cannot be halved {halvings} times: choose {near[0]} or {near[1]}"
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        pictures(size=size)
    for each in near:
        pictures(size=each)


@pytest.mark.parametrize("size", [-8, 0, 7, 257, 512])
def test_a_size_out_of_range_is_refused(size):
    with pytest.raises(ValueError, match=rf"\A--size must be 8 to 256, got {size}: .*\Z"):
        pictures(size=size)


def test_without_pictures_it_is_planned_but_not_trained(capsys):
    check_network(pictures(size=8, width=32))
    assert main(["train", "pictures", "--size", "8", "--width", "32", "--workdir", "run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "this run has no pictures: give their folder or zip with --path" in line
    assert not Path("run").exists()
    with pytest.raises(ValueError, match=r"\A--labels needs --path, .*\Z"):
        pictures(labels=True)


def test_a_path_that_does_not_exist_is_planned_too():
    experiment = pictures(path="nowhere", size=8, width=32, labels=True, num_classes=3)
    check_network(experiment)
    assert experiment.num_classes == 3
    with pytest.raises(FileNotFoundError, match="nowhere is neither a folder nor a zip"):
        check(experiment)


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> str:
    """The folder `patches` that the commands of the documentation make."""
    (commands,) = [text for text in re.findall(r"^```sh\n(.*?)^```", DOCS.read_text(), re.M | re.S) if "END" in text]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    folder = tmp_path_factory.mktemp("documentation")
    subprocess.run(["bash", "-ec", commands], check=True, env=environment, cwd=folder)
    return str(folder / "patches")


def test_the_patches_of_the_documentation_have_the_classes_that_it_states(patches):
    experiment = pictures(path=patches, labels=True, size=8, width=32)
    check(experiment)
    assert experiment.data.listing is not None
    report = experiment.data.listing().report
    assert re.fullmatch(r"808 pictures, \d+ of them for test, 3 classes from subfolders", report)
    source = experiment.data.open("train")
    classes = {source.names[n].partition("/")[0]: int(source[n]["label"]) for n in (0, len(source) - 1)}
    assert (
        classes == {"china": 0, "grace_hopper": 2} and experiment.num_classes == 3 and experiment.label_dropout == 0.1
    )


class Convolution(nn.Module):
    """Stands for the U-Net, which compiles for long."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return nn.Conv(x.shape[-1], (3, 3))(x)


class Bars(Reporter):
    """Remembers how many pictures the bars counted."""

    def __init__(self):
        self.counted = 0

    def track(self, items: Sequence, unit: str, total: int | None = None) -> Iterator:
        yield from items
        self.counted += total


def test_odd_pictures_are_trained_and_those_that_are_broken_stop_the_run_or_are_skipped():
    odd_pictures.write(Path("odd"))
    every = {"log_every": 1, "save_every": 2, "sample_every": 0}

    def run(**knobs):
        made = pictures(path="odd", size=8, batch_size=8, num_steps=2, test_percent=0, **every, **knobs)
        bars = Bars()
        train(dataclasses.replace(made, network=Convolution()), Path("run"), StopRequest(), reporter=bars)
        return bars.counted

    with pytest.raises(ValueError, match=r"\Aodd/integers\.tif has signed integers"):
        run()
    Path("odd/integers.tif").unlink()
    assert run(on_bad_picture="skip") == 0  # decoded when the split was opened, and kept
    rows = [json.loads(row) for row in Path("run/metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(np.isfinite(row["loss"]) for row in rows)


def test_loading_has_a_bar(patches):
    experiment, bars = pictures(path=patches, size=8, test_percent=0, batch_size=8, num_steps=1), Bars()
    make_program(experiment, make_mesh(None), experiment.data.open("train"), reporter=bars)
    assert bars.counted == 808


def test_what_is_stored_is_grey_where_that_is_asked_for():
    Path("colours").mkdir()
    Image.new("RGB", (20, 30), "red").save("colours/red.png")
    example = pictures(path="colours", grey=True, size=8).data.open("train")[0]
    assert example["image"].shape == (8, 8, 1) and (example["image"] == 76).all()  # 0.299 * 255


def test_a_weighted_loss_is_a_knob():
    assert pictures(size=16).loss is losses.simple
    weighted = pictures(size=16, snr_gamma=5.0).loss
    assert isinstance(weighted, losses.Weighted) and float(weighted.weight(jnp.float32(8.0))) == 5.0
    with pytest.raises(ValueError, match="--snr-gamma must be above 0, got 0"):
        pictures(size=16, snr_gamma=0.0)
