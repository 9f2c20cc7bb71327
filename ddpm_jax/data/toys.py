"""Data that are generated, the same on every machine: those of Sohl-Dickstein et al. 2015."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddpm_jax.data.dataset import Data, Example

BINS, PERIOD = 20, 5


def heartbeat(copies: int = 2000) -> Data:
    """Bits with a pulse in every fifth of 20 bins, the first in any of the first five (2015: Figure 2).

    Five sequences, equally likely: log2(1/5) = -2.321928 bits a sequence, mean activity 0.2. Each split holds each of
    them `copies` times, in turn.
    """
    return Data(name="heartbeat", image_shape=(BINS,), open=partial(_heartbeat, copies), levels=2)


def _heartbeat(copies: int, split: str) -> Sequence[Example]:
    first = np.arange(PERIOD)[:, None]
    return _rows(np.tile((np.arange(BINS) % PERIOD == first).astype(np.uint8), (copies, 1)))


def swiss_roll(noise: float = 0.0, num_train: int = 20_000, num_test: int = 10_000) -> Data:
    """Points on a spiral in the plane, scaled by a constant to variance one (2015: Figure 1 and Appendix D.1.1).

    Their mean is not zero, and their second moment 1.04.

    The angle is ``1.5 pi (1 + 2 u)`` and the radius the angle, u uniform; the paper tells neither that nor the `noise`,
    the deviation of what is added to the scaled points.
    """
    return Data("swiss_roll", image_shape=(2,), open=partial(_swiss_roll, noise, num_train, num_test), levels=None)


SPIRAL_SCALE = 6.7889
"""The root of the mean of the two coordinates' variances."""


def _swiss_roll(noise: float, num_train: int, num_test: int, split: str) -> Sequence[Example]:
    # RandomState's stream is frozen by NumPy: the points are the same on every machine and version
    draw = np.random.RandomState(0 if split == "train" else 1)
    count = num_train if split == "train" else num_test
    angle = 1.5 * np.pi * (1 + 2 * draw.uniform(size=count))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / SPIRAL_SCALE
    return _rows((points + noise * draw.normal(size=points.shape)).astype(np.float32))


def dead_leaves(
    size: int = 28, num_train: int = 4000, num_test: int = 1000, smallest: float = 1.5, largest: float = 14.0
) -> Data:
    """Grey discs that hide one another, their radii of density ``r ** -3`` (2015: Figure 4; Lee et al. 2001).

    Image i of a split is the same on every machine, and made when it is asked for. The paper used the data of Theis et
    al. 2012, which are not public: the range of radii, in pixels, is ours.
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
        # RandomState's stream is frozen by NumPy
        draw = np.random.RandomState((2015, list(self.split_sizes).index(self.split), range(len(self))[index]))
        return {"image": leaves(draw, self.size, self.smallest, self.largest)}


def leaves(draw: np.random.RandomState, size: int, smallest: float, largest: float) -> np.ndarray:
    """One image, uint8 [size, size, 1]: discs from the front to the back, until no pixel is left bare."""
    places = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5, indexing="ij"), axis=-1).reshape(-1, 2)
    image, bare = np.zeros(size * size, np.uint8), np.arange(size * size)
    while len(bare):
        count = 256
        # the inverse of the distribution function of r ** -3 between the two
        share = draw.uniform(size=count)
        radius = (smallest**-2 - share * (smallest**-2 - largest**-2)) ** -0.5
        centre = draw.uniform(-largest, size + largest, (count, 2))
        grey = draw.randint(0, 256, count)
        covered = np.square(places[bare][None] - centre[:, None]).sum(axis=-1) <= np.square(radius)[:, None]
        hit = covered.any(axis=0)
        image[bare[hit]] = grey[covered.argmax(axis=0)[hit]]
        bare = bare[~hit]
    return image.reshape(size, size, 1)


def _rows(stored: np.ndarray) -> Sequence[Example]:
    return [{"image": row} for row in stored]
