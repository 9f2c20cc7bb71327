"""Growth of cost: of a train step with batch, width, image size and T; of sampling with its steps; of messages with
devices.

    python tests/benchmarks/growth.py [--rounds 5] [--out growth.png]

The network has two levels with one block each and no attention, so that nothing grows but what is varied. Seconds are
medians of warm calls; bytes and FLOPs are XLA's own. A growth of 1 means twice the cost for twice as much.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib

matplotlib.use("agg")
import numpy as np
import optax
import tyro
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, ScalarFormatter

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, init_fn
from ddpm_jax.networks import UNet
from ddpm_jax.runs.plan import plan
from ddpm_jax.runs.step_program import abstract_batch, jitted, train_step
from ddpm_jax.runs.train import initial_state
from ddpm_jax.sampling import Run
from ddpm_jax.system import cpu
from ddpm_jax.training import sharding
from ddpm_jax.training.keys import keys

BASE = {"batch": 16, "width": 32, "size": 16, "T": 1000}
GRID = {"batch": (4, 8, 16, 32, 64), "width": (16, 32, 64, 128), "size": (8, 16, 32, 64), "T": (100, 1000, 10_000)}
STEPS = (5, 10, 20, 50, 100)
DEVICES = (1, 2, 4, 8)


class Cost(NamedTuple):
    """The cost of one train step."""

    seconds: float
    bytes: float
    flops: float


def experiment(batch: int, width: int, size: int, T: int) -> Experiment:
    """A U-Net for random images of `size` x `size`."""
    process = gaussian.process(schedules.linear_scaled(T))
    return Experiment(
        data=Data("random", (size, size, 3), lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process, parameterizations.fixed_large),
        network=UNet(width=width, multipliers=(1, 2), num_blocks=1, attention=(), dropout=0.0, groups=8),
        optimizer=optax.adam(2e-4),
        batch_size=batch,
        num_steps=1,
        ema_decay=0.9999,
    )


def train_cost(point: Mapping[str, int], rounds: int) -> Cost:
    """The cost of one train step on one device."""
    made, mesh = experiment(**point), sharding.make_mesh()
    state, step, costs = initial_state(made, mesh), jitted(made, mesh, train_step(made, mesh)), plan(made)
    batch = {
        name: sharding.to_devices(np.zeros(x.shape, x.dtype), x.sharding)
        for name, x in abstract_batch(made, mesh).items()
    }

    def call() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, batch))

    return Cost(median(call, rounds), costs.total_bytes, costs.flops_per_step)


def sample_seconds(steps: int, rounds: int) -> float:
    """Seconds of one batch in this number of steps."""
    made = experiment(**BASE)
    params = jax.jit(init_fn(made))(jax.random.key(0))
    sampler, batch_keys = Run(made, params, 0).sampler(steps), keys(0, BASE["batch"])
    return median(lambda: jax.block_until_ready(sampler(batch_keys)), rounds)


def median(call: Callable[[], Any], rounds: int) -> float:
    """The median of the seconds of `rounds` calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def growth(values: tuple[int, ...], costs: list[float]) -> float:
    """The power of the value that the cost is proportional to, fitted to the last three."""
    return float(np.polyfit(np.log(values[-3:]), np.log(costs[-3:]), 1)[0])


def messages(devices: int) -> dict[str, Any]:
    """The plan of the digits with 64 images on each of the devices, as ``ddpm-jax plan --json`` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "plan.json")
        options = ["--mesh", f"data={devices}", "--batch-size", str(64 * devices), "--json", str(path)]
        subprocess.run([sys.executable, "-m", "ddpm_jax", "plan", "digits", *options], check=True, capture_output=True)
        return json.loads(path.read_text())


def vary(axis: Any, name: str, values: tuple[int, ...], rounds: int) -> None:
    """Prints and draws the cost of a train step as one number varies."""
    costs = [train_cost(BASE | {name: value}, rounds) for value in values]
    for value, cost in zip(values, costs, strict=True):
        numbers = f"{cost.seconds * 1e3:9.1f} ms {cost.bytes / 2**20:8.1f} MiB {cost.flops / 1e9:9.2f} GFLOP"
        print(f"{name:6} {value:6}: {numbers}")
    powers = {field: growth(values, [getattr(cost, field) for cost in costs]) for field in Cost._fields}
    print(f"{name:6} growth: " + ", ".join(f"{field} {power:.2f}" for field, power in powers.items()), flush=True)
    axis.loglog(values, [cost.seconds * 1e3 for cost in costs], "o-", label="ms a train step")
    axis.loglog(values, [cost.bytes / 2**20 for cost in costs], "s-", label="MiB a device")
    axis.set_xticks(values, [str(value) for value in values])
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set(xlabel=name, title=f"time ~ {name}^{powers['seconds']:.2f}")
    axis.legend()


def sampling(axis: Any, rounds: int) -> None:
    """Prints and draws the time of sampling, with the line that is fitted to it."""
    seconds = [sample_seconds(steps, rounds) for steps in STEPS]
    slope, intercept = np.polyfit(STEPS, seconds, 1)
    off = max(abs(slope * steps + intercept - took) for steps, took in zip(STEPS, seconds, strict=True))
    line = f"{intercept * 1e3:.1f} ms + {slope * 1e3:.2f} ms a step"
    print(f"sampling {BASE['batch']} images: {line}, off by at most {off * 1e3:.1f} ms", flush=True)
    axis.plot(STEPS, seconds, "o-")
    axis.set(xlabel="steps", ylabel="seconds", title=f"sampling: {line}")


def main(rounds: int = 5, out: Path | None = None) -> None:
    """Prints the tables.

    Args:
        rounds: number of timed calls; a figure is their median.
        out: picture to draw, a .png.
    """
    cpu.use_fast_libraries()
    cpu.keep_memory()
    print(f"JAX {jax.__version__} on {jax.devices()[0].device_kind}; {BASE} apart from what is varied", flush=True)
    figure, axes = plt.subplots(1, 5, figsize=(20, 3.6), layout="constrained")
    for axis, (name, values) in zip(axes, GRID.items(), strict=False):
        axis.sharey(axes[0])  # with a scale of its own, a flat curve would show nothing but noise
        vary(axis, name, values, rounds)
    sampling(axes[-1], rounds)
    for devices in DEVICES:
        planned = messages(devices)
        sent = ", ".join(f"{n} {kind} of {size / 2**20:.2f} MiB" for kind, (n, size) in planned["collectives"].items())
        memory = f"{planned['total_bytes'] / 2**20:.1f} MiB a device"
        print(f"{devices} devices, 64 images each: {memory}; {sent or 'no message'}")
    if out is not None:
        figure.savefig(out, dpi=80)


if __name__ == "__main__":
    tyro.cli(main)
