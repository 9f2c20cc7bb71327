"""Samples that repeat training images are nearer to them than test images are; others are not."""

import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import fails

from ddpm_jax.data import load
from ddpm_jax.data.encodings import as_picture
from ddpm_jax.runs import experiment_files, quality
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.sampling import Run


def measured(monkeypatch, tmp_path, samples: np.ndarray) -> dict:
    digits = experiment_files.build(experiment_files.read(experiment_files.find("digits")), {})
    monkeypatch.setattr(quality, "_fast_samples", lambda *_: samples)
    return quality.memorisation(Run(digits, {}, 0), EvaluateRequest(tmp_path), tmp_path, Reporter())


def pictures(split: str) -> np.ndarray:
    data = experiment_files.build(experiment_files.read(experiment_files.find("digits")), {}).data
    return np.asarray(as_picture(jnp.asarray(load(data.open(split))["image"]), data.levels))


def test_samples_that_are_training_images_have_no_distance(monkeypatch, tmp_path):
    found = measured(monkeypatch, tmp_path, pictures("train")[[5, 700, 1436]])
    assert found["samples"] == found["closest"] == 0 and found["test"] > 10
    assert found["num_samples"] == 3


def test_samples_that_are_test_images_have_their_distance(monkeypatch, tmp_path):
    found = measured(monkeypatch, tmp_path, pictures("test"))
    assert found["samples"] == pytest.approx(found["test"], rel=1e-5)


def test_other_data_and_splits_are_refused(finished, capsys):
    assert "leave out --split train" in fails(
        capsys, "evaluate", str(finished), "--metrics", "memorisation", "--split", "train"
    )
