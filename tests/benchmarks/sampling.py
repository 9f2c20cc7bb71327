"""Sampling as one `lax.scan`, compared with a Python loop over a jitted step of the same network.

    python tests/benchmarks/sampling.py [--workdir runs/digits] [--num 1 64] [--steps 1000] [--rounds 3]
    python tests/benchmarks/sampling.py --step [--num 64] [--steps 50]

With --step every sampler is compared with as many bare calls of its network, in one `lax.scan`. Each program is called
once before it is timed. Rounds alternate; a row is their median. Without a workdir the digits experiment is timed with
random weights: the time does not depend on them.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro

import ddpm_jax
from ddpm_jax.diffusion import samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.experiment import Experiment, init_fn, network_fn
from ddpm_jax.runs import experiment_files
from ddpm_jax.sampling import prior_sample, sampler_fn
from ddpm_jax.studies.sweep import network_calls
from ddpm_jax.training.keys import keys


def loop(experiment: Experiment, params, times) -> Callable:
    """The sampler as one writes it without `lax.scan`: the step is jitted, the loop over t is Python's."""

    @jax.jit
    def step(params, batch_keys, n, x, t, s):
        sampler = sampler_fn(experiment)(params, None)
        return sampler.step(fold(batch_keys, n), x, None, t, s)[0]

    first = jax.jit(partial(prior_sample, experiment))

    def sample(batch_keys):
        x = first(batch_keys)
        for n, (t, s) in enumerate(pairwise(times), start=1):
            x = step(params, batch_keys, n, x, t, s)
        return experiment.encoding.decode(x)

    return sample


def bare(experiment: Experiment, params, calls: int) -> Callable:
    """The network alone, called as often as a sampler does, each call with the output of the one before."""
    times = samplers.times(experiment.process.schedule.num_steps, min(calls, experiment.process.schedule.num_steps))

    @jax.jit
    def forward(params, batch_keys):
        def call(x, n):
            return network_fn(experiment, params)(x, jnp.asarray(times)[n % (len(times) - 1)], None), None

        return jax.lax.scan(call, prior_sample(experiment, batch_keys), jnp.arange(calls))[0]

    return partial(forward, params)


def compare_steps(run: ddpm_jax.Run, count: int, steps: int, rounds: int) -> None:
    """Prints a line for each sampler: its time against that of its network calls alone."""
    batch_keys = keys(0, count)
    for name in samplers.SAMPLERS:
        ours = run.sampler(steps, sampler=name)
        alone = bare(run.experiment, run.params, network_calls(name, steps))
        jax.block_until_ready((ours(batch_keys), alone(batch_keys)))  # the call of each that is not timed
        ratios = sorted(seconds(ours, batch_keys) / seconds(alone, batch_keys) for _ in range(rounds))
        spread = f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"{name:12} {count} images: {statistics.median(ratios):.3f} of its network calls {spread}", flush=True)


def seconds(sample: Callable, batch_keys) -> float:
    """Seconds of one call, to the last image."""
    start = time.perf_counter()
    jax.block_until_ready(sample(batch_keys))
    return time.perf_counter() - start


def main(
    workdir: Path | None = None, num: tuple[int, ...] = (1, 64), steps: int = 1000, rounds: int = 3, step: bool = False
) -> None:
    """Prints a line for each number of images.

    Args:
        workdir: folder of a run. Default: the digits, not trained.
        num: numbers of images.
        steps: number of sampling steps.
        rounds: number of timed rounds.
        step: compare each sampler with its network calls.
    """
    if workdir is not None:
        experiment, params, _ = ddpm_jax.load(workdir)
    else:
        experiment = experiment_files.read(experiment_files.find("digits"))()
        params = jax.jit(init_fn(experiment))(jax.random.key(0))
    if step:
        for count in num:
            compare_steps(ddpm_jax.Run(experiment, params, 0), count, steps, rounds)
        return
    times = samplers.times(experiment.process.schedule.num_steps, steps)
    scan, python = ddpm_jax.Run(experiment, params, 0).sampler(steps), loop(experiment, params, times)
    print(f"{steps} steps on {jax.devices()[0].device_kind}, JAX {jax.__version__}; median of {rounds}")
    for count in num:
        batch_keys = keys(0, count)
        # the call of each that is not timed
        difference = jnp.abs(scan(batch_keys).astype(int) - python(batch_keys).astype(int)).max()
        pairs = [(seconds(scan, batch_keys), seconds(python, batch_keys)) for _ in range(rounds)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = sorted(a / b for a, b in pairs)
        ratio = f"{ours / theirs:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"{count:4} images: scan {ours:7.3f} s, loop {theirs:7.3f} s, ratio {ratio}; ", end="")
        print(f"pixels differ by at most {difference} of 255", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
