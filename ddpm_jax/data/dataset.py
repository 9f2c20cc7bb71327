"""The type of a data set, and the order in which a run reads its examples.

The order is a seeded global shuffle that can start at any position without reading the preceding examples. Step n of a
run sees the same examples whether or not the run was interrupted, and whether its data are kept on the device or
streamed from disk. No position has to be saved.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

Example = Mapping[str, np.ndarray]
"""``image``: uint8 with values 0 .. levels - 1, or float32 where levels is None; of the data set's `image_shape`.
``label``: int32 scalar, where the data set has classes."""


class Listing(NamedTuple):
    """What was found where the files of a data set lie."""

    report: str
    """One line on the examples and on the files that were left out."""
    digest: str
    """Identifies the examples and their order, in hexadecimal; the same after the files were moved."""


@dataclass(frozen=True)
class Data:
    """The description of a data set. Files are opened only with a split, so planning a run needs no files."""

    name: str
    image_shape: tuple[int, ...]
    """(height, width, channels) of images; points and bit sequences have shapes of their own."""
    open: Callable[[str], Sequence[Example]]
    """``open("train")`` or ``open("test")`` -> a random-access source.

    Raises FileNotFoundError, with the command that provides the files, where they are missing."""
    levels: int | None = 256
    """The number of values of a pixel: 256 for bytes, 2 for bits, None for floats."""
    num_classes: int | None = None
    """The number of values of ``label``; None where examples have no label."""

    listing: Callable[[], Listing] | None = None
    """``listing()`` -> what was found, for data that are files of the user."""

    @property
    def dtype(self) -> np.dtype:
        """The type of ``image``: uint8, or float32 where `levels` is None."""
        return np.dtype(np.float32 if self.levels is None else np.uint8)


def load(source: Sequence[Example], rows: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Reads these rows of a source, by default all, and returns one array per feature, [rows, ...]."""
    # array_record reads many rows at once ten times faster than one by one
    read_many = getattr(source, "__getitems__", lambda rows: [source[row] for row in rows])
    examples = read_many(range(len(source)) if rows is None else rows)
    return {feature: np.stack([example[feature] for example in examples]) for feature in examples[0]}


def check_example(data: Data, example: Example) -> None:
    """Raises ValueError if the example does not have the shape, dtype, values and label that `data` describes."""
    image, label = np.asarray(example["image"]), example.get("label")
    if image.shape != tuple(data.image_shape):
        raise ValueError(f"the images of {data.name} have shape {image.shape}, not {tuple(data.image_shape)}")
    if image.dtype != data.dtype:
        raise ValueError(f"the images of {data.name} are {image.dtype}: levels={data.levels} requires {data.dtype}")
    if data.levels is not None and image.max(initial=0) >= data.levels:
        raise ValueError(f"{data.name} has a pixel of value {image.max()}: values must be 0 to {data.levels - 1}")
    if data.num_classes is not None and (label is None or not 0 <= int(label) < data.num_classes):
        raise ValueError(f"{data.name} has an example with label {label}: labels must be 0 to {data.num_classes - 1}")


def indices(size: int, batch_size: int, seed: int) -> Callable[[int, int], np.ndarray]:
    """Returns ``at(step, count)`` -> int32 [count, batch_size], the examples of steps `step` .. `step + count - 1`.

    `size` is the number of examples in the data set. Each epoch has its own permutation, drawn from (seed, epoch). A
    batch at the end of an epoch continues with the next epoch.
    """
    permutation = lru_cache(2)(lambda epoch: np.random.default_rng((seed, epoch)).permutation(size))

    def at(step: int, count: int) -> np.ndarray:
        positions = np.arange(step * batch_size, (step + count) * batch_size)
        epochs, offsets = np.divmod(positions, size)
        parts = [permutation(epoch)[offsets[epochs == epoch]] for epoch in np.unique(epochs)]
        return np.concatenate(parts).astype(np.int32).reshape(count, batch_size)

    return at


WORKERS = 16
"""The default number of threads that read and decode batches."""


def stream(
    source: Sequence[Example],
    batch_size: int,
    seed: int,
    start: int = 0,
    rows: np.ndarray | None = None,
    workers: int = WORKERS,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches from step `start` on, without end, in the order of `indices`; one array per feature.

    Grain reads ahead with `workers` threads, a batch per thread. `rows` selects rows of each batch: the share of one
    of several processes. Default: all rows.
    """
    import grain

    rows = np.arange(batch_size) if rows is None else rows
    batches = grain.MapDataset.source(_Batches(source, indices(len(source), batch_size, seed), rows))[start:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)))


@dataclass(frozen=True)
class _Batches:
    """A source of whole batches: Grain's overhead per element exceeds the time to decode one small PNG."""

    source: Sequence[Example]
    at: Callable[[int, int], np.ndarray]
    """The function that `indices` returns."""
    rows: np.ndarray
    """The rows of each batch that are read."""

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return load(self.source, self.at(index, 1)[0, self.rows].tolist())
