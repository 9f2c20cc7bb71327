"""Images per second that the loader reads, decodes and puts on the device, and that a train step uses.

    python tests/benchmarks/loader.py [--sizes 32 256] [--workers 1 4 16] [--images 4096] [--rounds 3]
        [--no-step-too] [--peer]

The images are PNG files in a folder, read in shuffled order by 1, 4 and 16 threads. The train step is that of the
CIFAR-10 U-Net for 32x32 (batch 8) and of the CelebA-HQ one for 256x256 (batch 1): on a CPU larger batches take as long
per image. With --peer, PyTorch's DataLoader reads the same files with the same number of processes, in alternating
rounds.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from PIL import Image

from ddpm_jax.data import dead_leaves, folder, stream
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.step_program import abstract_batch, jitted, train_step
from ddpm_jax.runs.train import initial_state
from ddpm_jax.training import sharding

BATCH = 32
STEPS = {32: ("ho_2020/cifar10", 8), 256: ("ho_2020/celeba_hq", 1)}
"""Experiment and batch per device of the train step at each size."""


def write(path: Path, size: int, count: int) -> None:
    """Writes colour pictures as PNG files; the channels of each are three dead-leaves images."""
    grey = dead_leaves(size, num_train=3 * count, smallest=size / 20, largest=size / 2).open("train")
    for i in range(count):
        pixels = np.concatenate([grey[3 * i + channel]["image"] for channel in range(3)], axis=-1)
        Image.fromarray(pixels).save(path / f"{i:06d}.png")


def read(path: Path, size: int, workers: int, count: int) -> float:
    """Images per second of our loader, from the files to the device."""
    spread = sharding.batch_sharding(sharding.make_mesh())
    batches = stream(folder(str(path), (size, size, 3)).open("train"), BATCH, seed=0, workers=workers)
    return rate((sharding.to_devices(batch, spread) for batch in batches), workers, count)


def rate(batches: Iterator[Any], workers: int, count: int) -> float:
    """Images per second over `count` batches, after two batches per worker, which include what was read ahead."""
    for _ in range(2 * workers):
        jax.block_until_ready(next(batches))
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(next(batches))
    return count * BATCH / (time.perf_counter() - start)


class Pictures:
    """The files as a data set for PyTorch's DataLoader, repeated until there are `count`."""

    def __init__(self, path: Path, count: int):
        files = sorted(path.iterdir())
        self.files = (files * (1 + count // len(files)))[:count]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.array(Image.open(self.files[i]).convert("RGB"))


def read_by_peer(path: Path, size: int, workers: int, count: int) -> float:
    """Images per second of PyTorch's DataLoader."""
    from torch.utils.data import DataLoader

    pictures: Any = Pictures(path, (count + 2 * workers) * BATCH)
    loader = DataLoader(pictures, BATCH, shuffle=True, num_workers=workers, multiprocessing_context="spawn")
    return rate(iter(loader), workers, count)


def step(size: int) -> float:
    """Images per second of the train step alone, in its second call."""
    name, batch_size = STEPS[size]
    experiment = experiment_files.read(experiment_files.find(name))(batch_size=batch_size * jax.device_count())
    mesh = sharding.make_mesh()
    program, state = jitted(experiment, mesh, train_step(experiment, mesh)), initial_state(experiment, mesh)
    batch = {
        feature: sharding.to_devices(np.zeros(x.shape, x.dtype), x.sharding)
        for feature, x in abstract_batch(experiment, mesh).items()
    }
    state, _ = jax.block_until_ready(program(state, batch))
    start = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    return experiment.batch_size / (time.perf_counter() - start)


def main(
    sizes: tuple[int, ...] = (32, 256),
    workers: tuple[int, ...] = (1, 4, 16),
    images: int = 4096,
    rounds: int = 3,
    step_too: bool = True,
    peer: bool = False,
) -> None:
    """Prints a line for each size and number of threads.

    Args:
        sizes: heights and widths of the pictures.
        workers: numbers of threads, and of the peer's processes.
        images: number of images that are read in a round.
        rounds: number of rounds; a figure is their median.
        step_too: measure the train step too.
        peer: measure PyTorch's DataLoader too.
    """
    readers = (read, read_by_peer) if peer else (read,)
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), size, min(images, 256 if size < 128 else 16))
            for threads in workers:
                rates = [
                    [reader(Path(name), size, threads, images // BATCH) for reader in readers] for _ in range(rounds)
                ]
                ours, *theirs = (statistics.median(column) for column in zip(*rates, strict=True))
                beside = "".join(f", DataLoader with as many processes {other:.0f}" for other in theirs)
                print(f"{size}x{size} PNG, {threads} threads: {ours:.0f} images/s{beside}", flush=True)
        if step_too:
            print(f"{size}x{size} train step of {STEPS[size][0]}: {step(size):.2f} images/s", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
