"""What `evaluate` measures by features: the numbers of the metrics on the run's own samples, with their protocol."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from mistakes import fails
from recorder import Recorder

from ddpm_jax import metrics
from ddpm_jax.commands import main
from ddpm_jax.data import digits
from ddpm_jax.metrics import inception
from ddpm_jax.runs import features, fidelity
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import pictures
from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.report import evaluate
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.versions import commit


def asked(workdir: Path, *names: str, **options) -> EvaluateRequest:
    defaults: dict = {"metrics": names, "features": "pixels", "samples": 200, "steps": 4}
    return EvaluateRequest(workdir, **defaults | options)


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def test_the_numbers_are_those_of_the_run_s_samples_and_training_images(run, tmp_path):
    found = evaluate(asked(run, "fid", "kid", "pr", split="train"), Reporter())
    assert main(["sample", str(run), "--num", "200", "--steps", "4", "--out", str(tmp_path / "x.npz")]) == 0
    source = digits().open("train")
    images = np.load(tmp_path / "x.npz")["arr_0"], pictures(source, range(len(source)), digits().levels)
    drawn, reference = (metrics.extract(metrics.pixels, [each]) for each in images)
    expected = metrics.frechet(metrics.block_moments(drawn), metrics.moments(reference))
    assert found["fid"]["fid"] == pytest.approx(expected, rel=1e-9)
    assert "fid_at_infinity" not in found["fid"]  # 200 are fewer than four times the 64 pixels
    assert found["kid"]["kid"] == pytest.approx(metrics.kid(drawn, reference), rel=1e-4)
    shares = metrics.shares(drawn, reference)
    assert found["pr"]["precision"][0] == shares.precision.value and found["pr"]["recall"][0] == shares.recall.value


def test_an_interrupted_measurement_goes_on_where_it_stood(run, tmp_path):
    """The record is the same, and no image is drawn or measured twice."""
    other = shutil.copytree(run, tmp_path / "other")
    whole, rest = Recorder(), Recorder()
    expected = evaluate(asked(run, "fid", "kid"), whole)
    with pytest.raises(KeyboardInterrupt):
        evaluate(asked(other, "fid", "kid"), Recorder(last=1))
    assert len(list(other.glob("evaluation_*/features_of_samples/*.npz"))) == 8  # a round of eight devices
    assert evaluate(asked(other, "fid", "kid"), rest) == expected
    assert rest.items == whole.items[1:] and rest.lines == whole.lines
    assert not list(other.glob("evaluation_*/"))


def test_a_number_is_reported_with_its_protocol_and_bias(run):
    seen = Recorder()
    evaluate(asked(run, "fid", samples=300, num=80), seen)
    (line,) = seen.lines
    assert line.startswith("Frechet distance (features pixels, 300 samples, 80 test images, sampler")
    assert "biased upwards, since there are only 300 samples and 80 test images" in line
    assert "of infinitely many samples" in line  # 300 exceeds four times the 64 pixels
    record = read_records(run / "evaluation.json")[-1]
    protocol = {"samples": 300, "features": "pixels", "data": "digits", "split": "test", "reference": 80}
    assert protocol.items() <= record["fid"]["protocol"].items()
    drawn = {"sampler": "ancestral", "steps": 4, "spacing": "even", "guidance": None, "weights": "ema", "seed": 0}
    assert drawn.items() <= record["fid"]["drawn"].items()
    assert record["versions"]["jax"] == jax.__version__ and record["commit"] == commit()


def test_the_limit_of_many_samples_is_below_the_biased_distance(run):
    found = evaluate(asked(run, "fid", samples=300), Reporter())["fid"]
    assert found["fid_at_infinity"][0] < found["fid"][0]


def test_numbers_of_other_protocols_are_not_compared_in_silence(run):
    evaluate(asked(run, "kid"), first := Recorder())
    evaluate(asked(run, "kid", steps=2), faster := Recorder())
    evaluate(asked(run, "kid", samples=100, num=90), fewer := Recorder())
    assert len(first.lines) == 1
    assert faster.lines[1].endswith("by the same protocol; drawn with steps 4, not 2")
    assert "not comparable, its protocol differs: samples 200, not 100; reference 360, not 90" in fewer.lines[1]


def activations(images):
    """In place of the Inception network: its first ten classes see one pixel each."""
    flat = images.reshape(len(images), -1).astype(jnp.float32)
    logits = jnp.zeros((len(images), 1008)).at[:, :10].set(flat[:, 20:30] / 25)
    return inception.Activations(jnp.tile(flat, (1, 32)), jnp.zeros((len(images), 2023)), logits)


def test_the_inception_score_needs_no_reference(run, tmp_path, monkeypatch):
    named = features.Features(Partial(activations), {"features": "inception"})
    monkeypatch.setattr(fidelity, "features_of", lambda *_: named)
    monkeypatch.setattr(fidelity, "weights_of", lambda *_: None)
    evaluate(asked(run, "is", features="inception"), seen := Recorder())
    assert seen.lines[0].startswith("Inception Score (features inception, 200 samples, sampler ancestral, steps 4): ")
    found = read_records(run / "evaluation.json")[-1]["is"]
    assert main(["sample", str(run), "--num", "200", "--steps", "4", "--out", str(tmp_path / "x.npz")]) == 0
    logits = np.asarray(activations(np.load(tmp_path / "x.npz")["arr_0"]).logits)
    expected = metrics.inception_score(logits)
    assert found["of_splits"] == pytest.approx(expected[:2]) and found["of_all"] == pytest.approx(expected[2:])
    assert "reference" not in found["protocol"]


@pytest.mark.slow
def test_the_network_runs_on_all_devices(tmp_path, monkeypatch):
    """With random weights: its features are those of a single call."""
    params = inception.InceptionV3().init(jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    monkeypatch.setattr(inception, "weights_file", lambda path: tmp_path / "weights.pth")
    monkeypatch.setattr(inception, "params_from_torch", lambda state: params)
    monkeypatch.setattr(features.torch_files, "read", lambda path: {})
    made = features.features_of(EvaluateRequest(tmp_path, features="inception-clean"), (8, 8, 1))
    assert made.protocol["resizing"] == "clean" and made.protocol["weights_sha256"] == inception.SHA_256
    work = features.of_data(made, digits(), "test", num=3, size=2)
    found = np.concatenate([result["vectors"] for result in work.compute(work.firsts)])
    images = pictures(digits().open("test"), range(3), digits().levels)
    expected = np.asarray(inception.extractor(params, "clean")(images).pool)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


MISTAKES = {
    "fid": "there is no file",
    "fid --inception-weights none.pth": r"none.pth.*give it as --inception-weights FILE, or choose --features pixels",
    "is --features pixels": "--metrics is needs the classes of the Inception network: leave out --features pixels",
    "fid --features pixels --samples 39": "--samples must be at least 40 for --metrics fid, got 39",
    "kid --features pixels --num 39": "--metrics kid needs at least 40 images to compare with, got --num 39",
    "pr --features pixels --guidance 2": "this run is not class-conditional",
    "pr --features pixels --steps 51": "between 1 and 50, got 51",
    "bpd --eta 0": "--eta applies to --metrics parzen, fid, sfid, kid, pr, prdc, is, authenticity, not to bpd",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_mistakes_are_found_before_anything_is_drawn(finished, tmp_path, capsys, monkeypatch, options):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = {path.name for path in finished.iterdir()}
    message = fails(capsys, "evaluate", str(finished), "--metrics", *options.split())
    assert re.search(MISTAKES[options], message)
    assert {path.name for path in finished.iterdir()} == before


def test_points_have_no_fid():
    with pytest.raises(ValueError, match=r"--metrics fid is for images, not data of shape \(2,\)"):
        features.check_images("fid", (2,))
