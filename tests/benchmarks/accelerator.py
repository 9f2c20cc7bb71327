"""The CIFAR-10 U-Net of Ho et al. 2020 in bfloat16 on one accelerator, beside the same on PyTorch; one call, one table.

    pip install -e '.[gpu,dev,benchmark]'
    python tests/benchmarks/accelerator.py [--batch 128 512 1024] [--rounds 5] [--num 256] [--trace FOLDER]

For each batch images/s, TFLOP/s as XLA counts a step, their share of what a matrix product reaches on this device, and
the ratio to PyTorch in the same call; then the seconds of 1000 sampling steps, under a guard that refuses transfers;
then from a profile what the time of a train step goes to. On a host without an accelerator it says so and stops.
"""

import collections
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from peers import ENVIRONMENT, networks
from sides import Work, Worker
from sides.ours import Made, experiment

from ddpm_jax.experiment import Run, init_fn, keys

SIDE = 8192
KINDS = {
    "convolutions": ("cudnn-conv", "convolution"),
    "matrix products": ("gemm", "dot", "matmul"),
    "attention": ("fmha", "attention"),
}
"""How the names of operations begin or what they hold; the rest moves and adds."""


def matrix_peak(rounds: int) -> float:
    """TFLOP/s of a large bfloat16 matrix product."""
    a = jnp.ones((SIDE, SIDE), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    start = time.perf_counter()
    for _ in range(rounds):
        last = product(a)
    jax.block_until_ready(last)
    return 2 * SIDE**3 * rounds / (time.perf_counter() - start) / 1e12


def train_row(work: Work, rounds: int, peak: float) -> None:
    """Both sides' train step at one batch size."""
    with Worker("ours", work, ENVIRONMENT) as mine, Worker("diffusers", work) as other:
        turns = [[side.ask("train") for side in (mine, other)] for _ in range(1 + rounds)][1:]
        flops, memory = mine.ask("flops"), [side.ask("memory") / 2**30 for side in (mine, other)]
    ours, theirs = (statistics.median(column) for column in zip(*turns, strict=True))
    rate = flops / ours / 1e12
    printed = f"{work.batch / ours:8.0f} images/s, {rate:6.1f} TFLOP/s = {rate / peak:.0%} of the peak"
    peer = f"PyTorch {work.batch / theirs:8.0f} images/s, {memory[1]:.1f} GiB"
    print(f"batch {work.batch:5}: {printed}, {memory[0]:.1f} GiB; {peer}; {theirs / ours:.2f} times theirs", flush=True)


def sample_row(work: Work, num: int) -> None:
    """1000 steps of so many images, nothing of which passes through the host."""
    made = experiment(work)
    params = jax.jit(init_fn(made))(jax.random.key(0))
    sampler = jax.jit(Run(made, params, 0).sampler(1000))
    first, second = keys(0, num), keys(1, num)
    jax.block_until_ready((sampler(first), second))
    start = time.perf_counter()
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(sampler(second))
    print(f"{num} images in 1000 steps: {time.perf_counter() - start:.2f} s", flush=True)


def profile(work: Work, folder: Path) -> None:
    """What the device's time goes to in three train steps."""
    side = Made(work)
    side.wait(side.train())
    with jax.profiler.trace(str(folder)):
        for _ in range(3):
            side.wait(side.train())
    spent: collections.Counter[str] = collections.Counter()
    with gzip.open(next(folder.rglob("*.trace.json.gz"))) as file:
        for event in json.load(file)["traceEvents"]:
            if "hlo_op" in event.get("args", {}):
                spent[_kind(event)] += event["dur"]
    total = sum(spent.values()) or 1
    print("time of a train step: " + ", ".join(f"{kind} {part / total:.0%}" for kind, part in spent.most_common()))


def _kind(event: dict[str, Any]) -> str:
    name = f"{event['name']} {event['args']['hlo_op']}".lower()
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), "moving and adding")


def main(
    batch: tuple[int, ...] = (128, 512, 1024),
    rounds: int = 5,
    num: int = 256,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    trace: Path | None = None,
    on_cpu: bool = False,
) -> None:
    """Prints the table; with --on-cpu also where there is no accelerator, to try the script out."""
    os.environ.update(ENVIRONMENT)  # the device is shared with both sides
    device = jax.devices()[0]
    if device.platform == "cpu" and not on_cpu:
        sys.exit("no accelerator here: nothing is measured")
    config, _, _ = networks()["cifar10"]
    works = [Work(config, size, 1000, dtype, compiled=not on_cpu) for size in batch]
    peak = matrix_peak(1 if on_cpu else 20)
    print(f"JAX {jax.__version__} on {device.device_kind}: matrix products reach {peak:.0f} TFLOP/s", flush=True)
    for work in works:
        try:
            train_row(work, rounds, peak)
        except (RuntimeError, EOFError) as error:  # of a side that ran out of memory, most likely
            print(f"batch {work.batch:5}: {str(error)[:200] or 'a side ended'}", flush=True)
    sample_row(works[0], num)
    with tempfile.TemporaryDirectory() as folder:
        profile(works[min(1, len(works) - 1)], trace or Path(folder))


if __name__ == "__main__":
    tyro.cli(main)
