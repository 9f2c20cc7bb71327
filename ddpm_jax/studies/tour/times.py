"""Lessons on time: the noise schedules, and the embedding of timesteps."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from ddpm_jax.diffusion import schedules
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.networks.layers import timestep_embedding
from ddpm_jax.studies.tour.forward import T
from ddpm_jax.studies.tour.lesson import Lesson

SCHEDULES: Mapping[str, Schedule] = {
    "linear (2020)": schedules.linear(T),
    "quadratic": schedules.quadratic(T),
    "constant 0.02": schedules.constant(T),
    "warm-up 10 %": schedules.warmup(T),
    "sigmoid": schedules.sigmoid(T),
    "cosine (2021)": schedules.cosine(T),
    "1 / (T - t + 1) (2015)": schedules.steady(T),
}


def all_schedules() -> Lesson:
    """alpha_bar and the signal-to-noise ratio of each schedule."""
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
    """The sinusoidal embeddings of all timesteps as an image: a column for each timestep, a row for each feature."""
    rows = np.asarray(timestep_embedding(jnp.arange(T), width))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(rows.T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    axis.set(xlabel="index of the timestep", ylabel="feature")
    return Lesson("embedding", figure, {"frequencies": str(width // 2)})
