"""The samples of the experiment `digits` resemble digits. Trains a run (minutes); as a script, measures a finished one.

python tests/experiments/test_digits_quality.py --run runs/digits
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.data import load
from ddpm_jax.metrics import frechet_distance


class Quality(NamedTuple):
    """Comparison of samples with test digits, by a classifier of the training digits and by pixel statistics."""

    top_probability: tuple[float, float]
    """The mean confidence of the classifier on 512 samples, and on the test digits."""
    class_share: tuple[float, float]
    """The shares of the rarest and the most frequent class among 512 samples."""
    frechet_ratio: float
    """The Frechet distance of 1,024 samples from the training digits, divided by that of the test digits."""


def measure(run: ddpm_jax.Run) -> Quality:
    from sklearn.linear_model import LogisticRegression

    train, test = (load(run.experiment.data.open(split)) for split in ("train", "test"))
    real, held_out = (split["image"].reshape(len(split["image"]), -1) / 16 for split in (train, test))
    drawn = samples(run, 1024).reshape(1024, -1) / 255
    classifier = LogisticRegression(max_iter=2000).fit(real, train["label"])
    probabilities = classifier.predict_proba(drawn[:512])
    shares = np.bincount(probabilities.argmax(axis=1), minlength=10) / 512
    return Quality(
        top_probability=(
            float(probabilities.max(axis=1).mean()),
            float(classifier.predict_proba(held_out).max(axis=1).mean()),
        ),
        class_share=(float(shares.min()), float(shares.max())),
        frechet_ratio=frechet_distance(drawn, real) / frechet_distance(held_out, real),
    )


def samples(run: ddpm_jax.Run, num: int) -> np.ndarray:
    """Samples of the experiment's own sampler with all T steps."""
    draw = run.sampler()
    return np.concatenate([np.asarray(draw(ddpm_jax.keys(1, 64, start))) for start in range(0, num, 64)])


@pytest.mark.slow
def test_samples_look_like_digits(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "ddpm_jax", "train", "digits", "--workdir", str(tmp_path / "run")], check=True
    )
    quality = measure(ddpm_jax.load(tmp_path / "run"))
    print(quality)
    assert abs(quality.top_probability[0] - quality.top_probability[1]) < 0.08
    assert quality.class_share[0] >= 0.04 and quality.class_share[1] <= 0.20
    assert quality.frechet_ratio <= 2.5


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished workdir of the digits")
    for name, value in measure(ddpm_jax.load(parser.parse_args().run))._asdict().items():
        print(f"{name:16} {value}")
