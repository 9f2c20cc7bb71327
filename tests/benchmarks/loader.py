"""Images a second that the loader reads, decodes and puts on the device, beside what a train step takes.

    python tests/benchmarks/loader.py [--sizes 32 256] [--workers 1 4 16] [--images 512] [--no-step-too] [--peer]

The images are PNG files in a folder, read in Grain's shuffled order by that many threads. The step is that of the
CIFAR-10 U-Net for 32x32 and of the CelebA-HQ one for 256x256, with 8 and 1 images: of larger batches a step takes no
less for each image on a CPU, and on an accelerator this benchmark is to be run there. With --peer the same files are
read by PyTorch's DataLoader too, in as many processes, in turns with ours.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from PIL import Image

from ddpm_jax import recipes
from ddpm_jax.advance import abstract_state, compiled, train_step
from ddpm_jax.data import dead_leaves, folder, stream
from ddpm_jax.train import initial_state
from ddpm_jax.training import sharding

STEPS = {32: ("ho_2020/cifar10", 8), 256: ("ho_2020/celeba_hq", 1)}


def write(path: Path, size: int, count: int) -> None:
    """Colour pictures, three dead-leaf images each, as PNG files."""
    grey = dead_leaves(size, num_train=3 * count, smallest=size / 20, largest=size / 2).open("train")
    for i in range(count):
        pixels = np.concatenate([grey[3 * i + channel]["image"] for channel in range(3)], axis=-1)
        Image.fromarray(pixels).save(path / f"{i:06d}.png")


def read(path: Path, size: int, workers: int, batch_size: int, count: int) -> float:
    """Images a second, from the files to the device, once the threads are under way."""
    place = sharding.split(sharding.make_mesh())
    batches = stream(folder(str(path), (size, size, 3)).open("train"), batch_size, seed=0, workers=workers)
    for batch in (next(batches) for _ in range(2)):
        jax.block_until_ready(sharding.put(batch, place))
    start = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(sharding.put(next(batches), place))
    return count * batch_size / (time.perf_counter() - start)


class Pictures:
    """The files as PyTorch's DataLoader takes them, over and over."""

    def __init__(self, path: Path, count: int):
        files = sorted(path.iterdir())
        self.files = (files * (1 + count // len(files)))[:count]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> np.ndarray:
        return np.array(Image.open(self.files[i]).convert("RGB"))


def read_by_peer(path: Path, workers: int, batch_size: int, count: int) -> float:
    """Images a second of PyTorch's DataLoader, once its processes are under way."""
    from torch.utils.data import DataLoader

    pictures: Any = Pictures(path, (count + 2) * batch_size)
    loader = DataLoader(pictures, batch_size, shuffle=True, num_workers=workers, multiprocessing_context="spawn")
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    return count * batch_size / (time.perf_counter() - start)


def step(size: int) -> float:
    """Images a second of the train step alone, the second call of three."""
    name, batch_size = STEPS[size]
    experiment = recipes.read(recipes.find(name))(batch_size=batch_size * jax.device_count())
    mesh = sharding.make_mesh()
    state, like = initial_state(experiment, mesh), abstract_batch(experiment, mesh)
    program = (
        compiled(experiment, mesh, train_step(experiment, mesh)).lower(abstract_state(experiment, mesh), like).compile()
    )
    batch = {feature: sharding.put(np.zeros(x.shape, x.dtype), x.sharding) for feature, x in like.items()}
    state, _ = jax.block_until_ready(program(state, batch))
    start = time.perf_counter()
    jax.block_until_ready(program(state, batch))
    return experiment.batch_size / (time.perf_counter() - start)


def main(
    sizes: tuple[int, ...] = (32, 256),
    workers: tuple[int, ...] = (1, 4, 16),
    images: int = 512,
    step_too: bool = True,
    peer: bool = False,
) -> None:
    """Prints a line for each size and number of threads."""
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            write(Path(name), size, min(images, 256 if size < 128 else 16))
            for threads in workers:
                rate = read(Path(name), size, threads, 32, max(1, images // 32))
                print(f"{size}x{size} PNG, {threads:2} threads: {rate:8.0f} images/s", flush=True)
                if peer:
                    theirs = read_by_peer(Path(name), threads, 32, max(1, images // 32))
                    print(
                        f"  DataLoader, {threads:2} processes: {theirs:8.0f} images/s: {rate / theirs:.2f} times theirs"
                    )
        if step_too:
            print(f"{size}x{size} train step of {STEPS[size][0]}: {step(size):8.2f} images/s", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
