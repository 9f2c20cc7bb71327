"""The CIFAR-10 U-Net of Ho et al. 2020 in bfloat16 on one accelerator, compared with PyTorch.

    pip install -e '.[gpu,dev,benchmark]'
    python tests/benchmarks/accelerator.py [--batch 128 512 1024] [--rounds 5] [--num 256] [--trace FOLDER]

Prints for each batch size: images/s; TFLOP/s, with the FLOPs of a step as XLA counts them; their share of the rate
that a matrix product reaches on this device; and the ratio to PyTorch. Then the seconds of 1000 sampling steps, under a
guard that forbids transfers between host and device; then, from a profile, what the time of a train step is spent on.
Ends with an error on a host without an accelerator.
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

from ddpm_jax.experiment import init_fn
from ddpm_jax.sampling import Run
from ddpm_jax.training.keys import keys

SIDE = 8192
"""Rows and columns of the matrices whose product gives the peak."""
KINDS = {
    "convolutions": ("cudnn-conv", "convolution"),
    "matrix products": ("gemm", "dot", "matmul"),
    "attention": ("fmha", "attention"),
}
"""Kinds of operations, with parts of their names in a profile."""
OTHER_KIND = "moving and adding"


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
    """Prints the speed of both sides' train step at one batch size."""
    with Worker("ours", work, ENVIRONMENT) as our_side, Worker("diffusers", work) as their_side:
        sides = (our_side, their_side)
        seconds = [[side.measure("train") for side in sides] for _ in range(1 + rounds)][1:]
        flops, memory = our_side.measure("flops"), [side.measure("memory") / 2**30 for side in sides]
    ours, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    rate = flops / ours / 1e12
    speed = f"{work.batch / ours:8.0f} images/s, {rate:6.1f} TFLOP/s = {rate / peak:.0%} of the peak"
    peer = f"PyTorch {work.batch / theirs:8.0f} images/s, {memory[1]:.1f} GiB"
    print(f"batch {work.batch:5}: {speed}, {memory[0]:.1f} GiB; {peer}; {theirs / ours:.2f} times theirs", flush=True)


def sample_row(work: Work, num: int) -> None:
    """Prints the time of `num` images in 1000 steps, without transfers between host and device."""
    made = experiment(work)
    params = jax.jit(init_fn(made))(jax.random.key(0))
    sampler = jax.device_put(Run(made, params, 0).sampler(1000))  # its times and schedule are arrays of the host
    first, second = keys(0, num), keys(1, num)
    jax.block_until_ready((sampler(first), second))
    start = time.perf_counter()
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(sampler(second))
    print(f"{num} images in 1000 steps: {time.perf_counter() - start:.2f} s", flush=True)


def profile(work: Work, folder: Path) -> None:
    """Prints the shares of the kinds of operations in the device's time, over three train steps."""
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
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), OTHER_KIND)


def main(
    batch: tuple[int, ...] = (128, 512, 1024),
    rounds: int = 5,
    num: int = 256,
    dtype: Literal["bfloat16", "float32"] = "bfloat16",
    trace: Path | None = None,
    on_cpu: bool = False,
) -> None:
    """Prints the table.

    Args:
        batch: batch sizes.
        rounds: number of timed rounds; a figure is their median.
        num: number of images that are sampled.
        dtype: type that the network computes in.
        trace: folder in which the profile is kept.
        on_cpu: run without an accelerator, to try the script.
    """
    os.environ.update(ENVIRONMENT)  # the device is shared with the processes of both sides
    device = jax.devices()[0]
    if device.platform == "cpu" and not on_cpu:
        sys.exit("there is no accelerator: nothing is measured")
    config, _, _ = networks()["cifar10"]
    works = [Work(config, size, 1000, dtype, compiled=not on_cpu) for size in batch]
    peak = matrix_peak(1 if on_cpu else 20)
    print(f"JAX {jax.__version__} on {device.device_kind}: matrix products reach {peak:.0f} TFLOP/s", flush=True)
    for work in works:
        try:
            train_row(work, rounds, peak)
        except (RuntimeError, EOFError) as error:  # most likely a side that ran out of memory
            print(f"batch {work.batch:5}: {str(error)[:200] or 'a side ended'}", flush=True)
    sample_row(works[0], num)
    with tempfile.TemporaryDirectory() as folder:
        profile(works[min(1, len(works) - 1)], trace or Path(folder))


if __name__ == "__main__":
    tyro.cli(main)
