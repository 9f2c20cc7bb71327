"""Lessons on the reverse process: the true reverse step, the reverse chain of a model, the terms of the bound."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ddpm_jax.diffusion import gaussian, losses, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.studies.tour.forward import LINEAR
from ddpm_jax.studies.tour.lesson import Lesson, strips
from ddpm_jax.studies.tour.subject import NUM_SAMPLES, Subject
from ddpm_jax.training.keys import EVALUATE, keys


def true_reverse_step(weights: tuple[float, float] = (0.4, 0.6), t: int = 300, x_t: float = 0.05) -> Lesson:
    """The true reverse step q(x_s | x_t), a mixture of two q(x_s | x_t, x_0), for data at two points.

    The points are -1 and 1; `weights` are their probabilities.
    """
    points, x = jnp.array([-1.0, 1.0]), jnp.full(2, x_t)
    joint = jnp.array(weights) * jnp.exp(gaussian.transition(LINEAR, points, 0, t).log_prob(x))
    share = np.asarray(joint / joint.sum())
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axis, s in zip(figure.subplots(1, 3), (t - 1, t - 100, t - 200), strict=True):
        parts = gaussian.posterior(LINEAR, x, points, t, s)
        _draw_mixture(axis, share, np.asarray(parts.mean), float(np.ravel(parts.variance)[0]))
        axis.set(title=f"t = {t} to s = {s}", xlabel="x$_s$", yticks=())
        axis.legend(fontsize=8)
    facts = {"low": f"{weights[0]:g}", "high": f"{weights[1]:g}", "x_t": f"{x_t:g}", "t": str(t)}
    return Lesson("posterior", figure, facts)


def _draw_mixture(axis: Any, share: np.ndarray, means: np.ndarray, variance: float) -> None:
    """Draws a mixture of Gaussians of one variance, its components, and the Gaussian with the mixture's moments."""
    mean = float(share @ means)
    total = variance + float(share @ np.square(means - mean))
    x = mean + np.linspace(-4, 4, 400) * total**0.5
    components = share * _normal(x[:, None], means[None], variance)
    axis.plot(x, components, linewidth=1, label=["x$_0$ = -1", "x$_0$ = 1"])
    axis.plot(x, components.sum(axis=1), "k", label="q(x$_s$ | x$_t$)")
    axis.plot(x, _normal(x, mean, total), "r--", linewidth=1, label="matched Gaussian")


def _normal(x: np.ndarray, mean: Any, variance: float) -> np.ndarray:
    """The density of N(mean, variance) at x."""
    return np.exp(-np.square(x - mean) / (2 * variance)) / np.sqrt(2 * np.pi * variance)


def reverse_chain(subject: Subject, frames: int = 9) -> Lesson:
    """x_t of the reverse chain at up to `frames` times, and the estimate of x_0 from each x_t."""
    T = subject.process.schedule.num_steps
    times, frames = samplers.times(T, T), min(frames, T + 1)
    x_t, estimates = _chain_and_estimates(subject, times, frames)
    rows = []
    for i in range(NUM_SAMPLES):
        rows += [(f"x$_t$ of image {i}", list(x_t[:, i])), ("estimate\nof x$_0$", list(estimates[:, i]))]
    titles = [f"t = {t}" for t in samplers.frame_times(times, frames)]
    return Lesson("reverse", strips(rows, titles), {"model": subject.description})


def _chain_and_estimates(subject: Subject, times: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """x_t and the estimates of x_0, decoded, [frames, samples, ...]; the last estimate is x_0 of the chain."""
    visited = jnp.asarray(samplers.frame_times(times, frames)[:-1])

    def estimate(at):
        x_t, t = at
        return subject.parameterization.x_0(subject.network(x_t, t, subject.sample_labels), x_t, t)

    @jax.jit
    def chain(batch_keys):
        x_T = subject.process.prior((NUM_SAMPLES, *subject.train.shape[1:])).sample(fold(batch_keys, 0))
        x_0, path = samplers.sample_path(batch_keys, subject.sampler, x_T, times, frames)
        estimates = jnp.concatenate([jax.lax.map(estimate, (path[:-1], visited)), x_0[None]])
        return subject.encoding.decode(path), subject.encoding.decode(estimates)

    x_t, estimates = map(np.asarray, chain(keys(0, NUM_SAMPLES)))
    return x_t, estimates


def bound_terms(subject: Subject, count: int = 16) -> Lesson:
    """The terms L_{t-1} of the variational bound at up to 40 values of t, for `count` images of each split."""
    times = np.unique(np.geomspace(2, subject.process.schedule.num_steps, 40).astype(np.int32))[::-1]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axis, facts, bound_at = figure.subplots(), {"count": str(count)}, _bound_at(subject, times)
    for name, x_0, label in (
        ("training", subject.train[:count], subject.train_labels),
        ("test", subject.test[:count], subject.test_labels),
    ):
        bound = bound_at(keys(4, len(x_0), purpose=EVALUATE), x_0, None if label is None else label[:count])
        bits = 1 / (np.prod(x_0.shape[1:]) * np.log(2))
        axis.plot(times, np.asarray(bound.chain).mean(axis=0) * bits, ".-", label=f"{name} images")
        facts[name] = f"{float(bound.decoder.mean()) * bits:.3g}"
        facts["prior"] = f"{float(bound.prior.mean()) * bits:.1g}"
    axis.set(xscale="log", yscale="log", xlabel="t", ylabel="L$_{t-1}$, bits/dim")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], 1e-8))
    axis.legend()
    return Lesson("bound", figure, facts)


def _bound_at(subject: Subject, times: np.ndarray) -> Callable[..., losses.Bound]:
    """``(keys, x_0, label)`` -> the terms of the bound at these times, in nats per example, unweighted."""
    model = (subject.process, subject.parameterization, subject.network)

    @jax.jit
    def bound(batch_keys, x_0, label):
        return losses.bound(batch_keys, *model, x_0, label, jnp.asarray(times), jnp.ones(len(times)))

    return bound
