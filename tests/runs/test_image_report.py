"""What `evaluate` measures of images on disk: a set against itself, copies, and the samples of a run."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from mistakes import fails
from PIL import Image
from recorder import Recorder

from ddpm_jax import metrics
from ddpm_jax.commands import main
from ddpm_jax.data import digits
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import pictures
from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.report import evaluate
from ddpm_jax.runs.reporter import Reporter

TRAIN, TEST = (
    pictures(digits().open(split), range(count), digits().levels) for split, count in (("train", 120), ("test", 360))
)
"""Images of the experiment `digits`, with bytes of all levels."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working folder, with files of images."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "train.npz", TRAIN)
    np.savez(tmp_path / "test.npz", TEST)
    (tmp_path / "train").mkdir()
    for number, image in enumerate(TRAIN):
        Image.fromarray(image[..., 0]).save(tmp_path / "train" / f"{number:03d}.png")
    return tmp_path


def measured(source, reference: str, *names: str, **options) -> dict:
    defaults: dict = {"metrics": names, "features": "pixels", "reference": reference}
    return evaluate(EvaluateRequest(source, **defaults | options), Reporter())


def test_a_set_has_no_distance_from_itself(here):
    for source in ("train.npz", "train"):
        found = measured(here / source, "train.npz", "fid", "pr", "prdc")
        assert found["fid"]["fid"][0] == pytest.approx(0, abs=1e-6)
        assert found["pr"]["precision"][0] == found["pr"]["recall"][0] == found["prdc"]["coverage"][0] == 1
        assert found["images"]["num"] == 120


def test_the_numbers_are_those_of_the_functions(here):
    found = measured(here / "train.npz", "digits", "fid", "kid", "prdc")
    samples, reference = (metrics.extract(metrics.pixels, [images]) for images in (TRAIN, TEST))
    expected = metrics.frechet(metrics.block_moments(samples), metrics.moments(reference))
    assert found["fid"]["fid"] == pytest.approx(expected, rel=1e-9)
    assert found["kid"]["kid"] == pytest.approx(metrics.kid(samples, reference), rel=1e-4)
    shares = metrics.shares(samples, reference, k=5, closed=False)._asdict()
    assert {name: found["prdc"][name][0] for name in shares} == {name: each.value for name, each in shares.items()}


def test_copies_of_training_images_are_not_authentic(here):
    found = measured(here / "train.npz", "digits", "authenticity", "memorisation")
    assert found["authenticity"]["auth_pct"] == [0, 0] and found["authenticity"]["closer"][0] == 1
    assert found["memorisation"]["samples"] == 0 and found["memorisation"]["num_samples"] == 120
    fresh = measured(here / "test.npz", "digits", "authenticity", "memorisation")
    assert fresh["authenticity"]["closer"][0] == 0.5 and fresh["authenticity"]["auth_pct"][0] > 30
    assert fresh["memorisation"]["samples"] == pytest.approx(fresh["memorisation"]["test"], rel=1e-5)


def test_samples_in_a_file_have_the_numbers_of_samples_that_are_drawn(finished, here, capsys):
    """Whether they are compared with the split or with its statistics. The record has what identifies the file."""
    run = shutil.copytree(finished, here / "run")
    drawing = ["--steps", "2", "--seed", "3"]
    assert main(["sample", "run", "--num", "64", "--out", "x.npz", *drawing]) == 0
    by_features = ["--metrics", "fid", "pr", "--features", "pixels"]
    assert main(["reference", "run", "test.npz", "--split", "test", "--features", "pixels", "--overwrite"]) == 0
    assert main(["evaluate", "run", *by_features, "--samples", "64", *drawing]) == 0
    by_file = ["--metrics", "fid", "--features", "pixels", "--reference", "test.npz"]
    assert main(["evaluate", "run", *by_file, "--samples", "64", *drawing]) == 0
    assert main(["evaluate", "x.npz", *by_features, "--reference", "run", "--json", "x.json"]) == 0
    drawn, by_file = read_records(run / "evaluation.json")[-2:]  # without those of images, which are not the run's
    stored = json.loads((run / "evaluation.json").read_text())[-1]
    for name, numbers in (("fid", "fid"), ("pr", "precision"), ("pr", "recall")):
        assert stored[name][numbers] == drawn[name][numbers]
        assert stored[name]["protocol"] == drawn[name]["protocol"]
    assert by_file["fid"]["fid"] == drawn["fid"]["fid"] and by_file["fid"]["protocol"] == drawn["fid"]["protocol"]
    assert stored["images"]["sha256"] == hashlib.sha256((here / "x.npz").read_bytes()).hexdigest()
    assert stored["images"]["provenance"]["seed"] == 3 and stored["versions"] == drawn["versions"]
    assert json.loads((here / "x.json").read_text()) == stored
    assert re.search(r"measured before, at step \d+: fid .*, by the same protocol; its samples: sampler ancestral, st",
                     capsys.readouterr().out)  # fmt: skip
    assert not list(run.glob("evaluation_*/")) and not list(here.glob("evaluation_*"))


def test_an_interrupted_measurement_goes_on_where_it_stood(here):
    request = EvaluateRequest(here / "test.npz", ("fid",), reference="train.npz", features="pixels", batch_size=20)
    with pytest.raises(KeyboardInterrupt):
        evaluate(request, Recorder(last=1))
    found = evaluate(request, rest := Recorder())
    assert len(rest.items) == 3  # 18 chunks on eight devices, of which eight were there; the reference has six
    assert found["fid"]["fid"] == measured(here / "test.npz", "train.npz", "fid")["fid"]["fid"]


MISTAKES = {
    "train.npz": "--metrics fid compares with other images: give --reference, such as a workdir or a file",
    "train": "train is not a workdir; to measure the pictures in it, give --reference",
    "none.npz --reference digits": "there is no file none.npz",
    "train.npz --reference digts": "there is no file, folder or experiment 'digts', and TFDS has no data set 'digts'",
    "train.npz --reference none.npz": "there is no file none.npz",
    "train.npz --reference colour.npz": r"one shape: the samples have \(8, 8, 1\), .*colour.npz \(8, 8, 3\)",
    "train.npz --reference digits --samples 39": "--samples must be at least 40 for --metrics fid, got 39",
    "train.npz --reference digits --num 39": "needs at least 40 images to compare with, got --num 39",
    "train.npz --reference digits --steps 5": "--steps is for runs: leave it out, train.npz has",
    "train.npz --reference digits --weights raw": "--weights is for runs: leave it out",
    "train.npz --reference digits --metrics bpd": "--metrics bpd needs the workdir of a run, train.npz has images",
    "train.npz --reference digits --metrics sfid": "--metrics sfid needs the spatial features of the Inception network",
    "train.npz --reference test.npz --metrics authenticity": "needs training and test images, .*test.npz has no splits",
    "train.npz --reference test.npz --metrics memorisation": "needs training and test images: give as --reference",
    "train.npz --reference digits --metrics memorisation --split train": "leave out --split train",
}


def test_mistakes_are_found_before_the_work(here, capsys):
    np.savez(here / "colour.npz", np.repeat(TRAIN, 3, axis=-1))
    before = {path.name for path in here.iterdir()}
    for options, message in MISTAKES.items():
        assert re.search(message, fails(capsys, "evaluate", *options.split(), "--features", "pixels")), options
    assert {path.name for path in here.iterdir()} == before
