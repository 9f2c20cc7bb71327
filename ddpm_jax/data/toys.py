"""Synthetic data sets of Sohl-Dickstein et al. 2015, generated identically on every machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddpm_jax.data.dataset import Data, Example

BINS, PERIOD = 20, 5


def heartbeat(copies: int = 2000) -> Data:
    """Bit sequences of 20 bins with a pulse in every fifth bin, from one of the first five on (2015: Figure 2).

    The five sequences are equally likely, so the log-likelihood is log2(1/5) = -2.321928 bits per sequence. The mean of
    the bits is 0.2. Each split contains each sequence `copies` times, in turn.
    """
    return Data(name="heartbeat", image_shape=(BINS,), open=partial(_heartbeat, copies), levels=2)


def _heartbeat(copies: int, split: str) -> Sequence[Example]:
    first = np.arange(PERIOD)[:, None]
    return _examples(np.tile((np.arange(BINS) % PERIOD == first).astype(np.uint8), (copies, 1)))


def swiss_roll(noise: float = 0.0, num_train: int = 20_000, num_test: int = 10_000) -> Data:
    """Points on a spiral in the plane, scaled to variance one (2015: Figure 1 and Appendix D.1.1).

        angle = radius = 1.5 pi (1 + 2 u),    u uniform in [0, 1)

    The mean is not zero; the second moment is 1.04. `noise` is the standard deviation of Gaussian noise added to the
    scaled points. The paper gives neither the formula nor the noise.
    """
    return Data("swiss_roll", image_shape=(2,), open=partial(_swiss_roll, noise, num_train, num_test), levels=None)


SPIRAL_SCALE = 6.7889
"""The square root of the mean of the variances of the spiral's two coordinates."""


def _swiss_roll(noise: float, num_train: int, num_test: int, split: str) -> Sequence[Example]:
    # NumPy guarantees RandomState's stream: the points are the same on every machine and version
    random = np.random.RandomState(0 if split == "train" else 1)
    count = num_train if split == "train" else num_test
    angle = 1.5 * np.pi * (1 + 2 * random.uniform(size=count))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / SPIRAL_SCALE
    return _examples((points + noise * random.normal(size=points.shape)).astype(np.float32))


def dead_leaves(
    size: int = 28, num_train: int = 4000, num_test: int = 1000, smallest: float = 1.5, largest: float = 14.0
) -> Data:
    """Grey discs that occlude one another, with radii of density r^-3 (2015: Figure 4; Lee et al. 2001).

    Image i of a split is generated from (split, i) when it is read. The paper used the data of Theis et al. 2012, which
    are not public: the range of radii, `smallest` to `largest` in pixels, is our choice.
    """
    split_sizes = {"train": num_train, "test": num_test}
    return Data("dead_leaves", (size, size, 1), open=partial(_DeadLeaves, size, smallest, largest, split_sizes))


@dataclass(frozen=True)
class _DeadLeaves(Sequence):
    size: int
    smallest: float
    largest: float
    split_sizes: Mapping[str, int]
    split: str

    def __len__(self) -> int:
        return self.split_sizes[self.split]

    def __getitem__(self, index: int) -> Example:
        seed = (2015, list(self.split_sizes).index(self.split), range(len(self))[index])
        # NumPy guarantees RandomState's stream
        return {"image": _leaves(np.random.RandomState(seed), self.size, self.smallest, self.largest)}


def _leaves(random: np.random.RandomState, size: int, smallest: float, largest: float) -> np.ndarray:
    """One image, uint8 [size, size, 1]: discs drawn from front to back until every pixel is covered."""
    axis = np.arange(size) + 0.5
    pixels = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    image, uncovered = np.zeros(size * size, np.uint8), np.arange(size * size)
    while len(uncovered):
        count = 256
        radius = _radii(random.uniform(size=count), smallest, largest)
        centre = random.uniform(-largest, size + largest, (count, 2))
        grey = random.randint(0, 256, count)
        inside = np.square(pixels[uncovered][None] - centre[:, None]).sum(axis=-1) <= np.square(radius)[:, None]
        hit = inside.any(axis=0)
        image[uncovered[hit]] = grey[inside.argmax(axis=0)[hit]]
        uncovered = uncovered[~hit]
    return image.reshape(size, size, 1)


def _radii(uniform: np.ndarray, smallest: float, largest: float) -> np.ndarray:
    """Maps uniform numbers in [0, 1) to radii of density proportional to r^-3, by the inverse distribution function."""
    return (smallest**-2 - uniform * (smallest**-2 - largest**-2)) ** -0.5


def _examples(images: np.ndarray) -> Sequence[Example]:
    return [{"image": image} for image in images]
