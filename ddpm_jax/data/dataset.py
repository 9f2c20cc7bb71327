"""What a data set is to a run, and the order in which it is read.

The order is a seeded global shuffle that can be entered at any position without reading what stands before it: step n
of a run sees the same examples whether or not the run was stopped on the way, and whether its data are kept on the
device or streamed; no position needs to be saved.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Example = Mapping[str, np.ndarray]
"""``image``: uint8 [height, width, channels], values 0 .. levels - 1, or of any other shape, or float32 points;
``label``: int32 scalar, if there are classes."""


@dataclass(frozen=True)
class Data:
    """A data set by its numbers; its files are opened only when a split is asked for, so that planning needs none."""

    name: str
    image_shape: tuple[int, ...]
    """(height, width, channels); of points and sequences what shape they have."""
    open: Callable[[str], Sequence[Example]]
    """``open("train")`` or ``open("test")``: a random-access source. Raises FileNotFoundError saying what to type."""
    levels: int | None = 256
    """The number of values a pixel takes; 256 for bytes, None for floats."""
    num_classes: int | None = None


def load(source: Sequence[Example], rows: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """These rows of the source, or all of it, as one array per feature."""
    # array_record reads a row ten times faster among many than alone
    many = getattr(source, "__getitems__", lambda rows: [source[row] for row in rows])
    examples = many(range(len(source)) if rows is None else rows)
    return {feature: np.stack([example[feature] for example in examples]) for feature in examples[0]}


def indices(size: int, batch_size: int, seed: int) -> Callable[[int, int], np.ndarray]:
    """``at(step, count)`` -> int32 [count, batch_size]: which examples steps `step` .. `step + count - 1` read.

    Each epoch is a permutation of its own, drawn from (seed, epoch); batches run on over the end of an epoch.
    """
    permutation = lru_cache(2)(lambda epoch: np.random.default_rng((seed, epoch)).permutation(size))

    def at(step: int, count: int) -> np.ndarray:
        epochs, places = np.divmod(np.arange(step * batch_size, (step + count) * batch_size), size)
        parts = [permutation(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(parts).astype(np.int32).reshape(count, batch_size)

    return at


WORKERS = 16
"""Threads that read and decode batches."""


def stream(
    source: Sequence[Example],
    batch_size: int,
    seed: int,
    start: int = 0,
    rows: np.ndarray | None = None,
    workers: int = WORKERS,
) -> Iterator[dict[str, np.ndarray]]:
    """Batches from step `start` on, without end, in the order of `indices`, read ahead by Grain, one to a thread.

    With `rows` only these rows of each batch are read: what one of several processes needs.
    """
    import grain

    rows = np.arange(batch_size) if rows is None else rows
    batches = grain.MapDataset.source(_Batches(source, indices(len(source), batch_size, seed), rows))[start:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)))


@dataclass(frozen=True)
class _Batches:
    """These rows of each batch. For single examples Grain takes longer than it takes to decode a small PNG."""

    source: Sequence[Example]
    at: Callable[[int, int], np.ndarray]
    rows: np.ndarray

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return load(self.source, self.at(index, 1)[0, self.rows].tolist())
