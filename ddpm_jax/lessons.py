"""The pictures of the tour: what the library's own functions do to real images, to one bit and to points on a line."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from ddpm_jax.diffusion import binomial, gaussian, losses, samplers, schedules
from ddpm_jax.diffusion.losses import Network
from ddpm_jax.diffusion.parameterizations import Parameterization
from ddpm_jax.diffusion.process import Process
from ddpm_jax.diffusion.samplers import Sampler
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.encodings import Encoding
from ddpm_jax.experiment import keys
from ddpm_jax.networks.layers import timestep_embedding

T = 1000
TIMES = (0, 5, 20, 50, 100, 250, 500, 750, T)


class Lesson(NamedTuple):
    """One picture of the tour, and the numbers that its caption in tour.html tells."""

    name: str
    figure: Figure
    facts: Mapping[str, str]


class Subject(NamedTuple):
    """What the tour is about: images, and a model of them."""

    train: Float[Array, "num height width channels"]
    """x_0 of training images."""
    test: Float[Array, "some height width channels"]
    codec: Encoding
    process: Process
    parameterization: Parameterization
    network: Network
    sampler: Sampler
    told: str
    """What the model is, as HTML."""
    train_labels: Array | None = None
    """Where the network is told one."""
    test_labels: Array | None = None
    drawn_labels: Array | None = None
    """Of the `DRAWN` samples."""


DRAWN = 2


def memory(process: Process, x_0: Float[Array, "num *shape"]) -> Network:
    """E[x_0 | x_t] where the data are these examples and nothing else: what a network that learns them by heart says.

    Each example's weight is its share of q(x_t | x_0), by Bayes' rule.
    """
    flat = x_0.reshape(len(x_0), -1)
    squares = jnp.square(flat).sum(axis=1)[None] / 2

    def network(x_t, t, condition):
        alpha_bar, one_minus = process.schedule.at(t, 2)
        fit = jnp.sqrt(alpha_bar) * x_t.reshape(len(x_t), -1) @ flat.T - alpha_bar * squares
        return (jax.nn.softmax(fit / one_minus) @ flat).reshape(x_t.shape)

    return network


def two_states(rate: float = 0.25, beta: float = 0.15) -> Lesson:
    """The chain of one bit: its matrix, the powers of it, and its stationary distribution."""
    schedule = schedules.constant(40, beta)
    both = jnp.array([0.0, 1.0])

    def matrix(t):
        """Row i: the distribution of the bit at t that was i at 0, in closed form."""
        dist = binomial.transition(schedule, both, 0, t, rate)
        return np.stack([dist.zero, dist.one], axis=1)

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    *small, wide = figure.subplots(1, 5, width_ratios=(1, 1, 1, 1, 2.2))
    for axis, t in zip(small, (1, 2, 5, 20), strict=True):
        power = np.linalg.matrix_power(matrix(1), t)
        axis.imshow(power, vmin=0, vmax=1, cmap="Blues")
        for i, j in np.ndindex(2, 2):
            axis.text(j, i, f"{power[i, j]:.3f}", ha="center", va="center", color="white" if power[i, j] > 0.5 else "k")
        axis.set(title=f"P$^{{{t}}}$", xticks=(0, 1), yticks=(0, 1), xlabel="to", ylabel="from")
    t = np.arange(schedule.num_steps + 1)
    for start in (0, 1):
        wide.plot(t, [matrix(each)[start, 1] for each in t], label=f"closed form, from {start}")
        powers = [np.linalg.matrix_power(matrix(1), each)[start, 1] for each in t[::4]]
        wide.plot(t[::4], powers, "k.", label="powers of P" if start else None)
    wide.axhline(rate, color="grey", linestyle="--", label="stationary")
    wide.set(xlabel="t", ylabel="probability of a one", ylim=(0, 1))
    wide.legend()
    return Lesson("two_states", figure, {"rate": f"{rate:g}", "beta": f"{beta:g}"})


def forward(process: Process, keep: bool = True) -> Sampler:
    """The forward chain as a walk, x_s -> x_t for s < t; without `keep`, x is not shrunk before noise is added."""

    def step(keys, x, memory, s, t):
        dist: Any = process.transition(x, s, t)
        return (dist if keep else dist._replace(mean=x)).sample(keys), memory

    return Sampler(init=lambda x: None, step=step)


def stepwise(sampler: Sampler, x_0: Float[Array, "num *shape"], times: Sequence[int], seed: int) -> Iterator[Array]:
    """x_t at each of these rising times, one step of the chain after the other."""
    batch_keys = keys(seed, len(x_0))

    @jax.jit
    def walk(x, s, t):
        return samplers.stretch(batch_keys, sampler, x, jnp.arange(T + 1), s, t)

    x, reached = x_0, 0
    for t in times:
        x, reached = walk(x, reached, t), t
        yield x


CHAINS: Mapping[str, Schedule] = {
    "linear": schedules.linear(T),
    "cosine": schedules.cosine(T),
    "too large: 0.05": schedules.constant(T, 0.05),
}
FACTOR = r"$\sqrt{1 - \beta}$"


def strips(rows: Sequence[tuple[str, Sequence[Array]]], heads: Sequence[str], codec: Encoding) -> Figure:
    """Rows of images with their names, under the heads of the columns."""
    figure = Figure(figsize=(1.15 * len(heads) + 1.6, 1.15 * len(rows) + 0.3), layout="constrained")
    axes = figure.subplots(len(rows), len(heads), squeeze=False)
    for line, (name, row) in zip(axes, rows, strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axis, x in zip(line, row, strict=True):
            image = np.asarray(codec.decode(x))
            axis.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=(), yticks=())
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=10)
    return figure


def noising(subject: Subject) -> Lesson:
    """The forward process step by step, beside the closed form."""
    x_0, rows = subject.train[:1], []
    draws = jax.random.split(jax.random.key(2), len(TIMES))
    for name, schedule in CHAINS.items():
        process = gaussian.process(schedule)
        closed = [process.marginal(x_0, t).sample(key)[0] for t, key in zip(TIMES, draws, strict=True)]
        rows.append((f"{name}\nstep by step", [x[0] for x in stepwise(forward(process), x_0, TIMES, seed=1)]))
        rows.append((f"{name}\nclosed form", closed))
    plain = forward(gaussian.process(CHAINS["linear"]), keep=False)
    rows.append((f"linear,\nwithout {FACTOR}", [x[0] for x in stepwise(plain, x_0, TIMES, seed=1)]))
    return Lesson("forward", strips(rows, [f"t = {t}" for t in TIMES], subject.codec), {})


def moments(subject: Subject) -> Lesson:
    """The second moment of x_t along the chain, with and without the factor."""
    x_0, times = subject.train[:64], np.unique(np.geomspace(1, T + 1, 40).astype(int)) - 1
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, schedule in CHAINS.items():
        process = gaussian.process(schedule)
        for keep, style in ((True, "-"), (False, "--")):
            values = [
                float(jnp.square(x).mean()) for x in stepwise(forward(process, keep), x_0, times.tolist(), seed=3)
            ]
            axis.plot(times + 1, values, style, label=name if keep else f"{name}, without {FACTOR}")
    axis.set(xscale="log", yscale="log", xlabel="t + 1", ylabel="mean of x$_t$ squared")
    axis.legend(fontsize=8)
    return Lesson("variance", figure, {"images": str(len(x_0))})


def histogram(subject: Subject) -> Lesson:
    """The values of one pixel over the training images as t grows, against the standard normal."""
    process, times = gaussian.process(CHAINS["linear"]), (0, 50, 200, 400, T)
    spread = np.asarray(subject.train).std(axis=0)
    pixel = np.unravel_index(spread.argmax(), spread.shape)
    figure = Figure(figsize=(12, 2.8), layout="constrained")
    line = np.linspace(-4, 4, 200)
    for axis, t in zip(figure.subplots(1, len(times), sharey=True), times, strict=True):
        x_t = subject.train if t == 0 else process.marginal(subject.train, t).sample(jax.random.key(t))
        axis.hist(np.asarray(x_t)[:, *pixel], bins=np.linspace(-4, 4, 49).tolist(), density=True, alpha=0.6)
        axis.plot(line, np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi), "k", linewidth=1)
        axis.set(title=f"t = {t}", ylim=(0, 1.2), xlabel="value")
    left = float(CHAINS["linear"].alpha_bar[T]) ** 0.5
    facts = {"row": str(pixel[0]), "column": str(pixel[1]), "train": str(len(subject.train)), "left": f"{left:.4f}"}
    return Lesson("histogram", figure, facts)


SCHEDULES: Mapping[str, Schedule] = {
    "linear (2020)": schedules.linear(T),
    "quadratic": schedules.quadratic(T),
    "constant 0.02": schedules.constant(T),
    "warm-up 10 %": schedules.warmup(T),
    "sigmoid": schedules.sigmoid(T),
    "cosine (2021)": schedules.cosine(T),
    "1 / (T - t + 1) (2015)": schedules.steady(T),
}


def every_schedule() -> Lesson:
    """What is left of the data at t, and the signal-to-noise ratio."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    t = np.arange(1, T)
    for name, schedule in SCHEDULES.items():
        left.plot(schedule.alpha_bar, label=name)
        right.plot(t, schedules.signal_to_noise(schedule, jnp.asarray(t)), label=name)
    left.set(xlabel="t", ylabel="ᾱ$_t$")
    right.set(xlabel="t", ylabel="ᾱ$_t$ / (1 - ᾱ$_t$)", yscale="log")
    left.legend(fontsize=8)
    return Lesson("schedules", figure, {})


def embedding(width: int = 128) -> Lesson:
    """The sinusoidal embedding of all timesteps as an image."""
    rows = np.asarray(timestep_embedding(jnp.arange(T), width))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(rows.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xlabel="index of the timestep", ylabel="feature")
    return Lesson("embedding", figure, {"frequencies": str(width // 2)})


def bimodal(weights: tuple[float, float] = (0.4, 0.6), t: int = 300, x_t: float = 0.05) -> Lesson:
    """q(x_s | x_t) of data at two points on a line: the mixture over x_0 of q(x_s | x_t, x_0)."""
    schedule, places = CHAINS["linear"], jnp.array([-1.0, 1.0])
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    x = jnp.full(2, x_t)
    share = jnp.array(weights) * jnp.exp(gaussian.transition(schedule, places, 0, t).log_prob(x))
    share = np.asarray(share / share.sum())
    for axis, s in zip(figure.subplots(1, 3), (t - 1, t - 100, t - 200), strict=True):
        parts = gaussian.posterior(schedule, x, places, t, s)
        means, variance = np.asarray(parts.mean), float(np.ravel(parts.variance)[0])
        mean = float(share @ means)
        spread = variance + float(share @ np.square(means - mean))
        line = mean + np.linspace(-4, 4, 400) * spread**0.5
        curves = share * _normal(line[:, None], means[None], variance)
        axis.plot(line, curves, linewidth=1, label=["x$_0$ = -1", "x$_0$ = 1"])
        axis.plot(line, curves.sum(axis=1), "k", label="q(x$_s$ | x$_t$)")
        axis.plot(line, _normal(line, mean, spread), "r--", linewidth=1, label="its Gaussian")
        axis.set(title=f"t = {t} to s = {s}", xlabel="x$_s$", yticks=())
        axis.legend(fontsize=8)
    facts = {"low": f"{weights[0]:g}", "high": f"{weights[1]:g}", "x_t": f"{x_t:g}", "t": str(t)}
    return Lesson("posterior", figure, facts)


def _normal(x: np.ndarray, mean: Any, variance: float) -> np.ndarray:
    return np.exp(-np.square(x - mean) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def backwards(subject: Subject, frames: int = 9) -> Lesson:
    """The reverse process, and its estimate of x_0 on the way."""
    steps = subject.process.schedule.num_steps
    times, batch_keys = samplers.times(steps, steps), keys(0, DRAWN)
    frames, label = min(frames, steps + 1), subject.drawn_labels
    x_T = subject.process.prior((DRAWN, *subject.train.shape[1:])).sample(keys(1, DRAWN))
    x_0, path = jax.jit(lambda x: samplers.sample_path(batch_keys, subject.sampler, x, times, frames))(x_T)
    shown = samplers.frame_times(times, frames)
    reading = subject.parameterization
    guesses = [
        reading.x_0(subject.network(x, t, label), x, t) for x, t in zip(path[:-1], shown[:-1].tolist(), strict=True)
    ]
    rows = []
    for i in range(DRAWN):
        rows.append((f"x$_t$ of image {i}", [x[i] for x in path]))
        rows.append(("its estimate\nof x$_0$", [x[i] for x in (*guesses, x_0)]))
    return Lesson("reverse", strips(rows, [f"t = {t}" for t in shown], subject.codec), {"model": subject.told})


def divergences(subject: Subject, count: int = 16) -> Lesson:
    """The terms of the bound by t, on training and on test images."""
    steps = subject.process.schedule.num_steps
    times = np.unique(np.geomspace(2, steps, 40).astype(np.int32))[::-1]
    about = (subject.process, subject.parameterization, subject.network)

    @jax.jit
    def terms(batch_keys, x_0, label):
        return losses.bound(batch_keys, *about, x_0, label, jnp.asarray(times), jnp.ones(len(times)))

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axis, facts, prior = figure.subplots(), {}, 0.0
    for name, x_0, label in (
        ("training", subject.train, subject.train_labels),
        ("test", subject.test, subject.test_labels),
    ):
        bound = terms(keys(4, len(x_0[:count])), x_0[:count], None if label is None else label[:count])
        bits = 1 / (np.prod(x_0.shape[1:]) * np.log(2))
        axis.plot(times, np.asarray(bound.chain).mean(axis=0) * bits, ".-", label=f"{name} images")
        facts[name], prior = f"{float(bound.decoder.mean()) * bits:.3g}", float(bound.prior.mean()) * bits
    axis.set(xscale="log", yscale="log", xlabel="t", ylabel="L$_{t-1}$, bits/dim")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], 1e-8))
    axis.legend()
    return Lesson("divergences", figure, facts | {"prior": f"{prior:.1g}", "count": str(count)})


def lessons(subject: Subject) -> Iterator[Lesson]:
    """All of them, in the order of the tour."""
    yield two_states()
    yield noising(subject)
    yield moments(subject)
    yield histogram(subject)
    yield every_schedule()
    yield embedding()
    yield bimodal()
    yield backwards(subject)
    yield divergences(subject)
