"""The bias of each method that samples given a measurement, on Gaussian data whose posterior is known.

    python tests/benchmarks/editing.py [--num 4000] [--steps 100 1000]

Rows: the error of the mean in standard deviations of the posterior, and the smallest and largest eigenvalue of the
samples' covariance in units of the posterior's. docs/editing.md has the table.
"""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from ddpm_jax.diffusion import guidance, parameterizations, samplers

sys.path.insert(0, str(Path(__file__).parents[1]))
from posterior import POSTERIOR, POSTERIOR_MEAN, SIZE, Y, problem

T = 1000


def methods(num: int) -> dict:
    """The samplers by name."""
    process, eps, network, measurement = problem(T)
    y, of_x_0 = jnp.tile(jnp.asarray(Y, jnp.float32), (num, 1)), parameterizations.x0(process)
    given = partial(guidance.mmps, process, eps, network, measurement, y)
    pigdm = guidance.pigdm(process, eps, network, measurement, y)
    free = samplers.ddim(process, eps, network, eta=1.0)
    return {
        "no measurement": free,
        "mmps": samplers.ddim(process, of_x_0, given(), eta=1.0),
        "mmps, one iteration": samplers.ddim(process, of_x_0, given(1), eta=1.0),
        "mmps, eta 0": samplers.ddim(process, of_x_0, given(), eta=0.0),
        "pigdm": samplers.ddim(process, of_x_0, pigdm, eta=1.0),
        "pigdm, eta 0": samplers.ddim(process, of_x_0, pigdm, eta=0.0),
        "dps": guidance.dps(free, eps, network, measurement, y),
    }


def particles(num: int, count: int, steps: int) -> np.ndarray:
    """`num` samples by the particle filter with this number of particles."""
    process, eps, network, measurement = problem(T)
    runs = num // count
    sampler = guidance.twisted(process, eps, network, measurement, jnp.tile(jnp.asarray(Y, jnp.float32), (runs, 1)))
    x_T = jax.random.normal(jax.random.key(1), (runs, count, SIZE))
    return np.asarray(draw(sampler, x_T, steps)).reshape(-1, SIZE)


def draw(sampler, x_T, steps: int):
    keys = jax.random.split(jax.random.key(0), len(x_T))
    times = samplers.times(T, steps)
    return jax.jit(lambda keys, x_T: samplers.sample(keys, sampler, x_T, times))(keys, x_T)


def row(name: str, steps: int, x) -> str:
    x = np.asarray(x, np.float64)
    scale = np.linalg.inv(np.linalg.cholesky(POSTERIOR))
    values = np.linalg.eigvalsh(scale @ np.cov(x.T) @ scale.T)
    error = np.linalg.norm(scale @ (x.mean(axis=0) - POSTERIOR_MEAN)) / np.sqrt(SIZE)
    return f"{name:24} {steps:>5} steps  mean {error:.3f}  eigenvalues {values.min():.3f} to {values.max():.3f}"


def main(num: int = 4000, steps: tuple[int, ...] = (100, 1000)) -> None:
    x_T = jax.random.normal(jax.random.key(7), (num, SIZE))
    for count in steps:
        for name, sampler in methods(num).items():
            print(row(name, count, draw(sampler, x_T, count)), flush=True)
        for number in (4, 64):
            print(row(f"twisted, {number} particles", count, particles(num, number, count)), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
