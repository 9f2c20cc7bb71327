"""Lessons on the forward process: the chain of one bit, x_t step by step, its variance, its limit distribution."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddpm_jax.diffusion import binomial, gaussian, samplers, schedules
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.diffusion.types import Process, Sampler
from ddpm_jax.studies.tour.lesson import Lesson, strips
from ddpm_jax.studies.tour.subject import Subject
from ddpm_jax.training.keys import EVALUATE, keys, root_key

T = 1000
TIMES = (0, 5, 20, 50, 100, 250, 500, 750, T)
LINEAR = schedules.linear(T)
CHAINS: Mapping[str, Schedule] = {
    "linear": LINEAR,
    "cosine": schedules.cosine(T),
    "too large: 0.05": schedules.constant(T, 0.05),
}
"""The schedules whose chains are shown."""
FACTOR = r"$\sqrt{1 - \beta}$"


def two_states(rate: float = 0.25, beta: float = 0.15) -> Lesson:
    """The chain of one bit: its transition matrix, the powers of the matrix, and the stationary distribution."""
    schedule = schedules.constant(40, beta)
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    *small, wide = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 2.2))
    for axis, t in zip(small, (1, 2, 5, 20), strict=True):
        _draw_matrix(axis, np.linalg.matrix_power(bit_matrix(schedule, 1, rate), t), t)
    t = range(schedule.num_steps + 1)
    for first in (0, 1):
        wide.plot(t, [bit_matrix(schedule, each, rate)[first, 1] for each in t], label=f"closed form, from {first}")
        powers = [np.linalg.matrix_power(bit_matrix(schedule, 1, rate), each)[first, 1] for each in t[::4]]
        wide.plot(t[::4], powers, "k.", label="powers of P" if first else None)
    wide.axhline(rate, color="grey", linestyle="--", label="stationary")
    wide.set(xlabel="t", ylabel="probability of a one", ylim=(0, 1))
    wide.legend()
    return Lesson("two_states", figure, {"rate": f"{rate:g}", "beta": f"{beta:g}"})


def bit_matrix(schedule: Schedule, t: int, rate: float) -> Float[np.ndarray, "2 2"]:
    """The transition matrix from 0 to t in closed form: row i is the distribution of a bit at t that is i at 0.

    `rate` is the probability of a one under the stationary distribution.
    """
    dist = binomial.transition(schedule, jnp.array([0.0, 1.0]), 0, t, rate)
    return np.stack([dist.zero, dist.one], axis=1)


def _draw_matrix(axis: Axes, matrix: np.ndarray, power: int) -> None:
    axis.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
    for i, j in np.ndindex(2, 2):
        axis.text(j, i, f"{matrix[i, j]:.3f}", ha="center", va="center", color="white" if matrix[i, j] > 0.5 else "k")
    axis.set(title=f"P$^{{{power}}}$", xticks=(0, 1), yticks=(0, 1), xlabel="to", ylabel="from")


def forward_sampler(process: Process, shrink: ArrayLike = True) -> Sampler:
    """A sampler whose steps, for s < t, are samples of q(x_t | x_s): the forward chain as a walk over rising times.

    Without `shrink` the factor sqrt(1 - beta) is left out, and noise is added to x_s itself.
    """

    def step(keys, x, memory, s, t):
        dist: Any = process.transition(x, s, t)
        return dist._replace(mean=jnp.where(shrink, dist.mean, x)).sample(keys), memory

    return Sampler(init=lambda x: None, step=step)


def states(
    process: Process, x_0: Float[Array, "num *shape"], times: Sequence[int], seed: int, shrink: bool = True
) -> Iterator[Array]:
    """x_t [num, ...] of one forward chain per example at each of these rising times, computed step by step.

    The process must have T = 1000 steps.
    """
    nameless = dataclasses.replace(process.schedule, name="", numbers={})  # one compilation for all schedules
    process, batch_keys = dataclasses.replace(process, schedule=nameless), keys(seed, len(x_0), purpose=EVALUATE)
    x, reached = x_0, 0
    for t in times:
        x, reached = _advance(process, shrink, batch_keys, x, reached, t), t
        yield x


@jax.jit
def _advance(process: Process, shrink: ArrayLike, batch_keys: Array, x: Array, s: ArrayLike, t: ArrayLike) -> Array:
    """x_t from x_s, step by step."""
    sampler = forward_sampler(process, shrink)
    return samplers.stretch(batch_keys, sampler, x, sampler.init(x), jnp.arange(T + 1), s, t)[0]


def noising(subject: Subject) -> Lesson:
    """x_t of a training image by three schedules: step by step, and below it a sample of the closed form."""
    x_0, rows = subject.train[:1], []
    for name, schedule in CHAINS.items():
        process = gaussian.process(schedule)
        rows.append((f"{name}\nstep by step", states(process, x_0, TIMES, seed=1)))
        rows.append((f"{name}\nclosed form", _closed_form(process, x_0)))
    rows.append((f"linear,\nwithout {FACTOR}", states(gaussian.process(LINEAR), x_0, TIMES, seed=1, shrink=False)))
    decoded = [(label, [np.asarray(subject.encoding.decode(x[0])) for x in row]) for label, row in rows]
    return Lesson("forward", strips(decoded, [f"t = {t}" for t in TIMES]), {})


def _closed_form(process: Process, x_0: Array) -> Iterator[Array]:
    """A sample of q(x_t | x_0) at each of `TIMES`, each with its own noise."""
    for t, key in zip(TIMES, keys(2, len(TIMES), purpose=EVALUATE), strict=True):
        yield process.marginal(x_0, t).sample(key)


def variance(subject: Subject) -> Lesson:
    """The mean square of x_t along the chain, with and without the factor sqrt(1 - beta)."""
    x_0, times = subject.train[:64], np.unique(np.geomspace(1, T + 1, 40).astype(int)) - 1
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, schedule in CHAINS.items():
        for shrink, style, label in ((True, "-", name), (False, "--", f"{name}, without {FACTOR}")):
            chain = states(gaussian.process(schedule), x_0, times.tolist(), seed=3, shrink=shrink)
            axis.plot(times + 1, [float(jnp.square(x).mean()) for x in chain], style, label=label)
    axis.set(xscale="log", yscale="log", xlabel="t + 1", ylabel="mean of x$_t$ squared")
    axis.legend(fontsize=8)
    return Lesson("variance", figure, {"images": str(len(x_0))})


def histogram(subject: Subject) -> Lesson:
    """The values of one pixel over the training images as t grows, with the standard normal density."""
    process, times = gaussian.process(LINEAR), (0, 50, 200, 400, T)
    deviation = np.asarray(subject.train).std(axis=0)
    pixel = np.unravel_index(deviation.argmax(), deviation.shape)
    figure = Figure(figsize=(12, 2.8), layout="constrained")
    line, root = np.linspace(-4, 4, 200), root_key(5, EVALUATE)
    for axis, t in zip(figure.subplots(1, len(times), sharey=True), times, strict=True):
        x_t = subject.train if t == 0 else process.marginal(subject.train, t).sample(jax.random.fold_in(root, t))
        axis.hist(np.asarray(x_t)[:, *pixel], bins=np.linspace(-4, 4, 49).tolist(), density=True, alpha=0.6)
        axis.plot(line, np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi), "k", linewidth=1)
        axis.set(title=f"t = {t}", ylim=(0, 1.2), xlabel="value")
    left = float(LINEAR.alpha_bar[T]) ** 0.5
    facts = {"row": str(pixel[0]), "column": str(pixel[1]), "train": str(len(subject.train)), "left": f"{left:.4f}"}
    return Lesson("histogram", figure, facts)
