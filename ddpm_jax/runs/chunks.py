"""Work in chunks, shared by the devices of all processes; each result is kept, so that an interrupted call resumes."""

import math
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.files import whole_file
from ddpm_jax.training import distributed, sharding

Result = Mapping[str, np.ndarray]


class Work(NamedTuple):
    """Results for the items 0 .. num - 1, such as images, in chunks of `size` items."""

    num: int
    size: int
    compute: Callable[[Sequence[int]], Sequence[Result]]
    """``compute(firsts)`` -> the results of the chunks that begin with these items, for at most `together` chunks."""
    together: int = 1
    """The number of chunks in a full call of `compute`, such as one for each device of this process."""
    unit: str = "example"

    @property
    def firsts(self) -> range:
        """The first item of each chunk."""
        return range(0, self.num, self.size)

    @property
    def items_a_round(self) -> int:
        """The number of items that all processes compute in one call each."""
        return self.size * self.together * jax.process_count()


def on_devices(
    num: int,
    size: int,
    function: Callable[[Any, Any], Any],
    shared: Any,
    chunk: Callable[[int], Any],
    result: Callable[[Any], Result],
    unit: str = "example",
) -> Work:
    """The work ``result(function(shared, chunk(first)))``, a chunk on each device of this process.

    ``chunk(first)`` returns host arrays for the `size` items from `first` on; those beyond `num` only fill the last
    chunk. `function` is compiled and returns arrays [size, ...], which `result` receives without the rows that fill.
    """
    devices = devices_for(num, size)
    computed = sharding.on_each_device(function, shared, devices)

    def compute(firsts: Sequence[int]) -> list[Result]:
        outputs = computed([chunk(first) for first in firsts])
        real = (jax.tree.map(lambda x, end=num - first: x[:end], x) for first, x in zip(firsts, outputs, strict=True))
        return [result(each) for each in real]

    return Work(num, size, compute, devices, unit)


def chunk_size(most: int, shape: tuple[int, ...]) -> int:
    """`most` examples of this shape, or as many as have the pixels of `most` colour images of 64x64."""
    return max(1, min(most, most * 64 * 64 * 3 // math.prod(shape)))


def devices_for(num: int, size: int) -> int:
    """The number of devices of this process that have a chunk to compute; no more than it has, and at least one."""
    return min(jax.local_device_count(), -(-num // (size * jax.process_count())))


def share(
    work: Work, has: Callable[[int], bool], put: Callable[[int, Result], None], reporter: Reporter | None = None
) -> None:
    """Computes the chunks that are missing, each in one process, and returns when all processes have computed theirs.

    ``has(first)`` is whether the chunk that begins with this item is there; ``put(first, result)`` keeps its result
    where all processes find it. Every process must call this function; an error in one of them is one in all.
    """
    with distributed.all_or_none("another process failed", mistakes=False):
        missing = [first for first in work.firsts[jax.process_index() :: jax.process_count()] if not has(first)]
        rounds = [missing[n : n + work.together] for n in range(0, len(missing), work.together)]
        items = sum(min(work.size, work.num - first) for first in missing) * jax.process_count()
        for firsts in (reporter or Reporter()).track(rounds, work.unit, items):
            for first, result in zip(firsts, work.compute(firsts), strict=True):
                put(first, result)


def keep(work: Work, folder: Path, reporter: Reporter | None = None) -> None:
    """Computes the missing results and keeps them in `folder`, a file each.

    Every process must call this function; `folder` must be the same for all processes.
    """

    def put(first: int, result: Result) -> None:
        folder.mkdir(parents=True, exist_ok=True)  # again: the same measurement elsewhere may have ended
        with whole_file(_file(folder, work, first)) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **result)

    share(work, lambda first: _is_whole(_file(folder, work, first)), put, reporter)


def results(work: Work, folder: Path) -> Iterator[Result]:
    """Yields the results that were kept in `folder`, in order; one that is damaged is computed again."""
    for first in work.firsts:
        result = _read(_file(folder, work, first))
        yield work.compute([first])[0] if result is None else result


def kept(work: Work, folder: Path, reporter: Reporter | None = None) -> Iterator[Result]:
    """Yields all results in order, after the missing ones were computed and kept: `keep` and `results`."""
    keep(work, folder, reporter)
    yield from results(work, folder)


def affordable(work: Work, folder: Path, seconds: float, reporter: Reporter) -> int:
    """The number of items whose results take about this many seconds, compilation included: one round at the least.

    It is measured on the first two rounds that are not in `folder` yet; their results are kept there as by `keep`.
    Process 0 measures and decides.
    """
    (done,) = distributed.from_leader([_rounds(work, folder)])
    started, marks, stop = time.monotonic(), [0.0], 0
    while len(marks) < 3 and not stop:
        keep(work._replace(num=min(work.num, (done + len(marks)) * work.items_a_round)), folder, reporter)
        marks.append(time.monotonic() - started)
        (stop,) = distributed.from_leader([int(marks[-1] >= seconds)])
    a_round = max(marks[-1] - marks[-2], 1e-3)
    more = min(work.num, int(max(0.0, seconds - marks[-1]) / a_round))
    (rounds,) = distributed.from_leader([done + len(marks) - 1 + more])
    return min(work.num, rounds * work.items_a_round)


def _rounds(work: Work, folder: Path) -> int:
    """The number of whole rounds, from the first on, that are kept in `folder`."""
    chunks = 0
    for first in work.firsts:
        if not _is_whole(_file(folder, work, first)):
            break
        chunks += 1
    return chunks * work.size // work.items_a_round


def _file(folder: Path, work: Work, first: int) -> Path:
    return folder / f"{first:09d}_{min(work.size, work.num - first)}_of_{work.size}.npz"


def _is_whole(path: Path) -> bool:
    """Whether the file exists and is not cut short; its content is verified when it is read."""
    return path.exists() and zipfile.is_zipfile(path)


def _read(path: Path) -> Result | None:
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None
