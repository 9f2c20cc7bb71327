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
