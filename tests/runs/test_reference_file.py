"""Files of reference statistics give the numbers of the images that they were made from, and never those of others."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from mistakes import fails
from PIL import Image
from recorder import Recorder

from ddpm_jax import metrics
from ddpm_jax.commands import main
from ddpm_jax.data import digits
from ddpm_jax.metrics import inception
from ddpm_jax.runs import features, fidelity, reference_file
from ddpm_jax.runs.evaluate_requests import EvaluateRequest, ReferenceRequest
from ddpm_jax.runs.features import pictures
from ddpm_jax.runs.reference_file import reference_to_file
from ddpm_jax.runs.report import evaluate

IMAGES = pictures(digits().open("test"), range(120), digits().levels)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "x.npz", IMAGES)
    return tmp_path


def make(*arguments: str) -> None:
    assert main(["reference", *arguments, "--features", "pixels"]) == 0


def measured(reference: str, *names: str, **options) -> dict:
    defaults: dict = {"metrics": names, "features": "pixels", "reference": reference, "split": "train"}
    return evaluate(EvaluateRequest(Path("x.npz"), **defaults | options), Recorder())


def test_the_file_has_the_numbers_and_the_protocol_of_the_split(here):
    make("digits", "train.npz")
    by_file, by_images = (measured(reference, "fid")["fid"] for reference in ("train.npz", "digits"))
    assert by_file["fid"] == by_images["fid"] and by_file["protocol"] == by_images["protocol"]
    make("digits", "half.npz", "--num", "700")
    assert measured("half.npz", "fid")["fid"]["fid"] == measured("digits", "fid", num=700)["fid"]["fid"]


def test_gray_pictures_of_a_folder_are_those_of_their_array(here):
    (here / "gray").mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image[:, :, 0]).save(here / "gray" / f"{number:03}.png")
    make("gray", "gray.npz", "--channels", "1")
    assert measured("gray.npz", "fid")["fid"]["fid"] == measured("x.npz", "fid")["fid"]["fid"]


def test_the_moments_of_groups_are_those_of_all(here, monkeypatch):
    make("x.npz", "whole.npz")
    monkeypatch.setattr(reference_file, "GROUP", 50)
    make("x.npz", "groups.npz", "--batch-size", "25")
    whole, groups = (metrics.read_statistics(here / name) for name in ("whole.npz", "groups.npz"))
    assert whole.made == groups.made and whole.pool.count == groups.pool.count == 120
    np.testing.assert_allclose(groups.pool.covariance, whole.pool.covariance, atol=1e-12)


def test_files_of_other_programs_serve_without_a_statement_of_their_protocol(here):
    """pytorch-fid's have mu and sigma; those of Dhariwal & Nichol 2021 also the images."""
    vectors = metrics.extract(metrics.pixels, [IMAGES])
    np.savez(here / "theirs.npz", mu=vectors.mean(0), sigma=np.cov(vectors, rowvar=False))
    np.savez(here / "batch.npz", mu=vectors.mean(0), sigma=np.cov(vectors, rowvar=False), arr_0=IMAGES)
    for name in ("theirs.npz", "batch.npz"):
        assert measured(name, "fid")["fid"]["fid"][0] == pytest.approx(0, abs=1e-6)
    found = measured("batch.npz", "pr", "kid")
    assert found["pr"]["precision"][0] == 1 and found["kid"]["kid"] == measured("x.npz", "kid")["kid"]["kid"]
    with pytest.raises(ValueError, match=r"--metrics kid compares with images, --reference theirs.npz has statistics"):
        measured("theirs.npz", "kid")


def test_a_file_is_kept_and_replaced_only_on_demand(here, capsys):
    make("digits", "ref.npz")
    before = (here / "ref.npz").read_bytes()
    make("digits", "ref.npz")
    assert "holds these statistics already" in capsys.readouterr().out
    again = ("reference", "x.npz", "ref.npz", "--features", "pixels")
    assert "ref.npz exists and holds something else" in fails(capsys, *again)
    assert (here / "ref.npz").read_bytes() == before
    assert main([*again, "--overwrite"]) == 0
    assert metrics.read_statistics(here / "ref.npz").pool.count == 120
    assert {path.name for path in here.iterdir()} == {"x.npz", "ref.npz"}


def test_an_interrupted_command_goes_on_where_it_stood(here):
    request = ReferenceRequest("x.npz", here / "ref.npz", features="pixels", batch_size=5)
    with pytest.raises(KeyboardInterrupt):
        reference_to_file(request, Recorder(last=2))
    assert not (here / "ref.npz").exists()
    reference_to_file(request, rest := Recorder())
    assert len(rest.items) == 1  # 24 chunks on eight devices
    assert measured("ref.npz", "fid")["fid"]["fid"][0] == pytest.approx(0, abs=1e-6)
    assert {path.name for path in here.iterdir()} == {"x.npz", "ref.npz"}


def activations(images):
    """In place of the Inception network."""
    flat = images.reshape(len(images), -1).astype(jnp.float32)
    return inception.Activations(flat, flat[:, 10:50] ** 2 / 100, flat[:, :10])


@pytest.fixture
def network(here, monkeypatch):
    """Features "inception" whose weights have the digest "a"."""
    protocol = {"features": "inception", "resizing": "tensorflow", "weights_sha256": "a"}

    def named(request, image_shape):
        return features.Features(Partial(activations), protocol, "sfid" in request.metrics)

    monkeypatch.setattr(fidelity, "features_of", named)
    monkeypatch.setattr(fidelity, "weights_of", lambda *_: None)
    monkeypatch.setattr(reference_file, "features_of", named)
    return protocol


def test_sfid_is_the_distance_of_the_spatial_features(here, network):
    assert main(["reference", "digits", "ref.npz"]) == 0
    by_file, by_images = (measured(name, "fid", "sfid", features="inception") for name in ("ref.npz", "digits"))
    source = digits().open("train")
    images = IMAGES, pictures(source, range(len(source)), digits().levels)
    samples, reference = (np.asarray(activations(each).spatial) for each in images)
    expected = metrics.frechet_distance(samples, reference)
    assert by_file["sfid"]["sfid"] == by_images["sfid"]["sfid"]
    assert by_file["sfid"]["sfid"][0] == pytest.approx(expected, rel=1e-6)
    assert by_file["fid"]["fid"] == by_images["fid"]["fid"] != by_file["sfid"]["sfid"]


def test_statistics_of_another_protocol_are_refused(here, network):
    assert main(["reference", "digits", "ref.npz"]) == 0
    network["weights_sha256"] = "b"
    with pytest.raises(ValueError, match="another protocol, weights_sha256 b, not a"):
        measured("ref.npz", "fid", features="inception")
    with pytest.raises(ValueError, match=r"ref\.npz has statistics of --features inception, not pixels"):
        measured("ref.npz", "fid")
    np.savez(here / "theirs.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(ValueError, match="statistics of 2048 features, but inception are 64"):
        measured("theirs.npz", "fid", features="inception")
    np.savez(here / "theirs.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(ValueError, match="no mu_s and sigma_s for --metrics sfid"):
        measured("theirs.npz", "sfid", features="inception")


MISTAKES = {
    "x.npz ref.txt": "give the name of a file that ends in .npz",
    "x.npz none/ref.npz": "there is no folder",
    "x.npz ref.npz --num 39": "statistics need at least 40 images, x.npz gives 39",
    "x.npz ref.npz --num 0": "--num must be at least 1, got 0",
    "x.npz ref.npz --features inception": "there is no file .*give it as --inception-weights FILE",
    "none.npz ref.npz": "there is no file none.npz",
    "only.npz ref.npz": "only.npz has statistics and no images",
    "odd.npz ref.npz": r"a mean of shape \(64,\) has no covariance of shape \(3, 3\)",
    "sohl_dickstein_2015/swiss_roll ref.npz": r"has data of shape \(2,\)",
}


def test_mistakes_are_found_before_the_work(here, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(here))
    np.savez(here / "only.npz", mu=np.zeros(64), sigma=np.eye(64))
    np.savez(here / "odd.npz", IMAGES, mu=np.zeros(64), sigma=np.eye(3))  # has images, too
    for options, message in MISTAKES.items():
        arguments = options.split() if "--features" in options else [*options.split(), "--features", "pixels"]
        assert re.search(message, fails(capsys, "reference", *arguments)), options
    assert {path.name for path in here.iterdir()} == {"x.npz", "only.npz", "odd.npz"}


def test_the_file_states_what_made_it(here):
    make("digits", "ref.npz", "--num", "100")
    made = metrics.read_statistics(here / "ref.npz").made
    expected = {"features": "pixels", "data": "digits", "split": "train", "reference": 100, "image_shape": [8, 8, 1]}
    assert made.items() >= expected.items() and json.dumps(made)
