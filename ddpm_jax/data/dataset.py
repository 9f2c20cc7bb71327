"""The type of a data set, and the order in which a run reads its examples.

The order is a seeded global shuffle that can start at any position without reading the preceding examples. Step n of a
run sees the same examples whether or not the run was interrupted, and whether its data are kept on the device or
streamed from disk. No position has to be saved.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Example = Mapping[str, np.ndarray]
"""``image``: uint8 with values 0 .. levels - 1, or float32 where levels is None; of the data set's `image_shape`.
``label``: int32 scalar, where the data set has classes."""
Source = Sequence
"""A sequence of examples. The type of its elements is left out: a run-time type checker would read one of them at
random, and a folder of pictures may have a broken one."""


Track = Callable[[Sequence, str, int], Iterator]
"""``track(items, unit, total)`` -> the items, one by one; it may show the progress, from 0 to `total` units."""


class Listing(NamedTuple):
    """The examples that a data set has now, and what was left out."""

    report: str
    """One line, such as "6,212 pictures, 14 files left out (.txt 12, .gif broken 2), 5 classes from subfolders"."""
    digest: str
    """Identifies the examples and their order. It does not depend on where the data are, nor on when they were written.
    """


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
    listing: Callable[..., Listing] | None = None
    """``listing()`` or ``listing(track)`` -> Listing, where the examples are files that may change between two starts.

    `track` receives the progress if pictures have to be decoded to find those that are broken. Raises what `open`
    raises."""

    @property
    def dtype(self) -> np.dtype:
        """The type of ``image``: uint8, or float32 where `levels` is None."""
        return np.dtype(np.float32 if self.levels is None else np.uint8)


def load(source: Source, rows: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Reads these rows of a source, by default all, and returns one array per feature, [rows, ...]."""
    # array_record reads many rows at once ten times faster than one by one
    read_many = getattr(source, "__getitems__", lambda rows: [source[row] for row in rows])
    examples = read_many(range(len(source)) if rows is None else rows)
    return {feature: np.stack([example[feature] for example in examples]) for feature in examples[0]}


def untracked(items: Sequence, unit: str, total: int | None = None) -> Iterator:
    """Yields the items: a `Track` that shows nothing."""
    yield from items


BLOCK = 32
"""The number of examples that a thread reads at once."""


def in_blocks(read: Callable[[range], Any], size: int, workers: int, track: Track = untracked) -> Iterator[Any]:
    """``read(rows)`` for each block of the rows 0 .. size - 1, in order, computed by `workers` threads."""
    starts = range(0, size, BLOCK)
    pool = ThreadPoolExecutor(workers)
    try:
        blocks = pool.map(lambda start: read(range(start, min(start + BLOCK, size))), starts)
        for _ in track(starts, "image", size):
            yield next(blocks)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error, or Ctrl-C, no further block is read


def load_all(source: Sequence, workers: int, track: Track = untracked) -> dict[str, np.ndarray]:
    """All examples of a source as one array per feature, [examples, ...], read by threads.

    A source may have a method ``load_all(workers, track)`` of its own, which keeps what it decoded.
    """
    own = getattr(source, "load_all", None)
    return load_by_threads(source, workers, track) if own is None else own(workers, track)


def load_by_threads(source: Sequence, workers: int, track: Track = untracked) -> dict[str, np.ndarray]:
    """The result of `load`, computed by threads, a block of examples each."""
    whole: dict[str, np.ndarray] = {}
    position = 0
    for block in in_blocks(lambda rows: load(source, rows), len(source), workers, track):
        for feature, rows in block.items():
            if feature not in whole:  # once, so that there are no two copies of the whole
                whole[feature] = np.empty((len(source), *rows.shape[1:]), rows.dtype)
            whole[feature][position : position + len(rows)] = rows
        position += len(block["image"])
    return whole


def check_examples(data: Data, split: str) -> None:
    """Raises ValueError if the first, the middle or the last example of the split is not as `data` describes."""
    source = data.open(split)
    if not len(source):
        raise ValueError(f"{data.name} has no example in the {split} split")
    for row in sorted({0, len(source) // 2, len(source) - 1}):
        check_example(data, source[row])


def check_example(data: Data, example: Example) -> None:
    """Raises ValueError if the example does not have the shape, dtype, values and label that `data` describes."""
    if "image" not in example:
        raise ValueError(f"{data.name} has an example with {', '.join(example) or 'nothing'}, but no image")
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
    source: Source,
    batch_size: int,
    seed: int,
    start: int = 0,
    rows: np.ndarray | None = None,
    workers: int = WORKERS,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches from step `start` on, without end, in the order of `indices`; one array per feature.

    Grain reads ahead with `workers` threads, a batch per thread. `rows`, int [rows], selects rows of each batch: the
    share of one of several processes. Default: all rows. The arrays are [rows, ...].
    """
    import grain

    rows = np.arange(batch_size) if rows is None else rows
    batches = grain.MapDataset.source(_Batches(source, indices(len(source), batch_size, seed), rows))[start:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)))


@dataclass(frozen=True)
class _Batches:
    """A source of whole batches: Grain's overhead per element exceeds the time to decode one small PNG."""

    source: Source
    at: Callable[[int, int], np.ndarray]
    """The function that `indices` returns."""
    rows: np.ndarray
    """The rows of each batch that are read."""

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return load(self.source, self.at(index, 1)[0, self.rows].tolist())
