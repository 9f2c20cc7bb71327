"""Data that are generated, the same on every machine: those of Sohl-Dickstein et al. 2015."""

from collections.abc import Sequence
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

    The angle is ``1.5 pi (1 + 2 u)`` and the radius the angle, u uniform; the paper tells neither that nor the `noise`,
    the deviation of what is added to the scaled points.
    """
    return Data("swiss_roll", image_shape=(2,), open=partial(_swiss_roll, noise, num_train, num_test), levels=None)


SPIRAL_SCALE = 6.7889
"""The root of half the mean squared radius over the spiral."""


def _swiss_roll(noise: float, num_train: int, num_test: int, split: str) -> Sequence[Example]:
    # RandomState's stream is frozen by NumPy: the points are the same on every machine and version
    draw = np.random.RandomState(0 if split == "train" else 1)
    count = num_train if split == "train" else num_test
    angle = 1.5 * np.pi * (1 + 2 * draw.uniform(size=count))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / SPIRAL_SCALE
    return _rows((points + noise * draw.normal(size=points.shape)).astype(np.float32))


def _rows(stored: np.ndarray) -> Sequence[Example]:
    return [{"image": row} for row in stored]
