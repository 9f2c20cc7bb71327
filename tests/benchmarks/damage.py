"""Damages the newest of two checkpoints at random, restores, and counts what came back.

    python tests/benchmarks/damage.py [--num 1000 --seed 0 --processes 1 --no-digests]

Each damage is made on a fresh copy of a folder with two checkpoints of a small model, to one of the files of the newest
one (half of the time drawn by size, so that those with the arrays have their share), or to two of them. Both
`restore_parameters`, which sampling uses, and `restore`, which training uses, then read the folder. The result of each
must be, to the bit, the newest checkpoint or the one before; anything else, an exception included, counts as WRONG, and
the exit status is 1. With several processes all of them restore at once, and must have the same result. --no-digests
removes the digests from the checkpoints, which shows what they are good for.
"""

import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.sharding import Mesh

from ddpm_jax.training import EMA, TrainState, checkpoints, create, distributed, sharding

OLD, NEW = 4, 8
PREVIOUS, RIGHT, WRONG = "detected, previous taken", "content right", "WRONG"
BLOCK = 64


@dataclass
class Options:
    """Restores checkpoints after random damages."""

    num: int = 1000
    """Number of damages."""
    seed: int = 0
    """Seed of the damages."""
    processes: int = 1
    """Number of processes that restore together, with two CPU devices each."""
    digests: bool = True
    """Whether the checkpoints have digests."""
    join: tuple[int, int] | None = None
    """Port and number of one of several processes, which the first process starts."""


def flip_a_bit(draw: random.Random, path: Path, newest: Path) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def swap_two_bytes(draw: random.Random, path: Path, newest: Path) -> None:
    content = bytearray(path.read_bytes())
    i, j = draw.randrange(len(content)), draw.randrange(len(content))
    content[i], content[j] = content[j], content[i]
    path.write_bytes(content)


def swap_two_blocks(draw: random.Random, path: Path, newest: Path) -> None:
    content = bytearray(path.read_bytes())
    size = min(BLOCK, len(content) // 2)
    i, j = sorted(size * draw.randrange(len(content) // size) for _ in range(2))
    content[i : i + size], content[j : j + size] = content[j : j + size], content[i : i + size]
    path.write_bytes(content)


def overwrite_a_block(draw: random.Random, path: Path, newest: Path) -> None:
    _replace_block(draw, path, draw.randbytes)


def zero_a_block(draw: random.Random, path: Path, newest: Path) -> None:
    _replace_block(draw, path, bytes)


def _replace_block(draw: random.Random, path: Path, make: Callable[[int], bytes]) -> None:
    content = bytearray(path.read_bytes())
    start = draw.randrange(len(content))
    content[start : start + BLOCK] = make(len(content[start : start + BLOCK]))
    path.write_bytes(content)


def truncate(draw: random.Random, path: Path, newest: Path) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def append(draw: random.Random, path: Path, newest: Path) -> None:
    path.write_bytes(path.read_bytes() + draw.randbytes(BLOCK))


def delete(draw: random.Random, path: Path, newest: Path) -> None:
    path.unlink()


def delete_its_folder(draw: random.Random, path: Path, newest: Path) -> None:
    """The folder of the file within the checkpoint; the file, if it is in no such folder."""
    shutil.rmtree(path.parent) if path.parent != newest else path.unlink()


def swap_two_files(draw: random.Random, path: Path, newest: Path) -> None:
    other = draw.choice(files_of(newest))
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


def take_from_the_previous(draw: random.Random, path: Path, newest: Path) -> None:
    """The file of that name in the previous checkpoint, or else its largest file, as if a write had been lost."""
    previous = newest.with_name(str(OLD))
    same = previous / path.relative_to(newest)
    path.write_bytes((same if same.exists() else max(files_of(previous), key=_size)).read_bytes())


DAMAGES = (
    flip_a_bit,
    swap_two_bytes,
    swap_two_blocks,
    overwrite_a_block,
    zero_a_block,
    truncate,
    append,
    delete,
    delete_its_folder,
    swap_two_files,
    take_from_the_previous,
)


def _size(path: Path) -> int:
    return path.stat().st_size


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _size(path))


def damage(draw: random.Random, folder: Path) -> str:
    """Damages the newest checkpoint of the folder; returns the kind of the damage."""
    newest = folder / str(NEW)
    whole, kind = contents(newest), draw.choice(DAMAGES)
    while contents(newest) == whole:  # two equal bytes, say, may have been swapped
        files = files_of(newest)
        by_size = draw.choices(files, [_size(path) for path in files])[0]
        kind(draw, draw.choice((by_size, draw.choice(files))), newest)
    return kind.__name__.replace("_", " ")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files_of(folder)}


@functools.cache
def state(step: int) -> TrainState:
    """The state at a step: random numbers in several shapes, one of them large enough to be sharded over fsdp."""
    shapes = {"in": (3, 3, 1, 8), "scale": (8,), "middle": (128, 128), "out": (8, 1), "bias": ()}

    def make() -> TrainState:
        params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        return create(params, optax.adam(0.1), history={"losses": jnp.zeros(50)})

    draw = np.random.default_rng(step)
    filled = jax.tree.map(lambda x: np.asarray(draw.normal(size=x.shape), x.dtype), jax.eval_shape(make))
    return filled._replace(step=np.int32(step))


def on(mesh: Mesh, tree: Any) -> Any:
    """The tree on the devices of the mesh, as training shards it."""
    shardings = sharding.shardings(sharding.with_shardings(tree, mesh))
    return jax.tree.map(sharding.to_devices, tree, shardings)


def write(folder: Path, mesh: Mesh, with_digests: bool) -> None:
    """Writes the two checkpoints, on request in the format of version 0.1, without digests."""
    with checkpoints.manager(folder) as manager:
        for step in (OLD, NEW):
            checkpoints.save(manager, on(mesh, state(step)))
    if with_digests or not distributed.is_leader():
        return
    for step in (OLD, NEW):
        shutil.rmtree(folder / str(step) / checkpoints.DIGESTS)
        record = folder / str(step) / "_CHECKPOINT_METADATA"
        content = json.loads(record.read_text())
        del content["item_handlers"][checkpoints.DIGESTS]
        record.write_text(json.dumps(content))


def outcome(folder: Path, mesh: Mesh, like: TrainState) -> str:
    """What `restore_parameters` and then `restore` make of the folder; the worse of both."""
    try:
        with checkpoints.reader(folder) as manager:
            ema, step = checkpoints.restore_parameters(manager, like, "ema") or (None, 0)
        results = [judged(ema, step, state(step).averages[EMA])]
        with checkpoints.manager(folder) as manager:
            found = checkpoints.restore(manager, like)
            step = 0 if found is None else int(found.step)
            results.append(judged(found, step, state(step)))
            if step == OLD and (folder / str(NEW)).exists():
                return WRONG  # the next save would find its place taken
    except Exception as error:
        print(f"process {jax.process_index()}: {type(error).__name__}: {error}", file=sys.stderr)
        return WRONG
    return max(results, key=(RIGHT, PREVIOUS, WRONG).index)


def judged(found: Any, step: int, expected: Any) -> str:
    if step not in (OLD, NEW) or not all(jax.tree.leaves(jax.tree.map(_equal, found, expected))):
        return WRONG
    return RIGHT if step == NEW else PREVIOUS


def _equal(x: jax.Array, expected: Any) -> bool:
    shards = [(np.asarray(shard.data), np.asarray(expected)[shard.index]) for shard in x.addressable_shards]
    return all(here.tobytes() == there.tobytes() for here, there in shards)


def restored(options: Options, workdir: Path) -> Counter[tuple[str, str]]:
    """The number of each (kind of damage, outcome)."""
    mesh = sharding.make_mesh({"fsdp": min(2, jax.device_count())})
    like = sharding.with_shardings(state(NEW), mesh)
    write(workdir / "whole", mesh, options.digests)
    distributed.agree(True)  # all wait until the checkpoints are written
    counts: Counter[tuple[str, str]] = Counter()
    for number in range(options.num):
        folder, kind = workdir / str(number) / "checkpoints", ""
        if distributed.is_leader():
            shutil.copytree(workdir / "whole", folder)
            kind = damage(random.Random(options.seed + number), folder)
        distributed.agree(True)  # all wait for all
        result = outcome(folder, mesh, like)
        alike = [distributed.agree(result == each) for each in (RIGHT, PREVIOUS)]
        counts[kind, result if any(alike) else WRONG] += 1
        if distributed.is_leader():
            if not any(alike):
                print(f"damage {number}, {kind}: WRONG", file=sys.stderr)
            shutil.rmtree(folder.parent)
    return counts


def table(counts: Counter[tuple[str, str]]) -> str:
    """The counts as a Markdown table, with a row for each kind of damage."""
    columns = (PREVIOUS, RIGHT, WRONG)
    rows = [f"| damage | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for kind in sorted({kind for kind, _ in counts}):
        rows.append(f"| {kind} | {' | '.join(str(counts[kind, column]) for column in columns)} |")
    sums = (sum(count for (_, result), count in counts.items() if result == column) for column in columns)
    return "\n".join([*rows, f"| all | {' | '.join(map(str, sums))} |"])


def in_processes(options: Options) -> int:
    """Starts the processes; returns the first exit status that is not 0."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    arguments = ["--num", str(options.num), "--seed", str(options.seed), "--processes", str(options.processes)]
    command = [sys.executable, __file__, *arguments, *([] if options.digests else ["--no-digests"]), "--join"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    with tempfile.TemporaryDirectory() as shared:
        environment = os.environ | {"XLA_FLAGS": flags, "TMPDIR": shared}
        started = [
            subprocess.Popen([*command, str(port), str(number)], env=environment) for number in range(options.processes)
        ]
        return next((status for status in [process.wait() for process in started] if status), 0)


def main(options: Options) -> int:
    if options.processes > 1 and options.join is None:
        return in_processes(options)
    checkpoints.PAUSES = ()  # the damages are no passing errors
    if options.join is not None:
        port, number = options.join
        distributed.join(f"localhost:{port}", options.processes, number)
        counts = restored(options, Path(tempfile.gettempdir()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            counts = restored(options, Path(folder))
    if distributed.is_leader():
        print(table(counts))
    return int(any(result == WRONG for _, result in counts))


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Options, description=__doc__)))
