"""Sampling loops: a sampler applied over all times, over a part of the times, or with intermediate states kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num

from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.types import Process, Sampler


def sample(
    keys: Key[Array, " batch"], sampler: Sampler, x_T: Float[Array, "batch *shape"], times: Num[ArrayLike, " visits"]
) -> Float[Array, "batch *shape"]:
    """Samples x_0 from x_T: applies the sampler's step to each pair of consecutive times, in one `lax.scan`.

    `times` are integers or real numbers, from T to 0. Step n folds n = 1, 2, .. into the keys, so a time that is
    visited twice has new noise. Example i depends on ``keys[i]`` and ``x_T[i]`` only. Raises the ValueError of
    `check_times`, unless the times are traced.
    """
    check_times(sampler, times)

    def body(carry, step):
        return _step(keys, sampler, carry, *step), None

    (x_0, _), _ = jax.lax.scan(body, (x_T, sampler.init(x_T)), _steps(times))
    return x_0


def stretch(
    keys: Key[Array, " batch"],
    sampler: Sampler,
    x: Float[Array, "batch *shape"],
    memory: Any,
    times: Num[ArrayLike, " visits"],
    first: ArrayLike,
    last: ArrayLike,
) -> tuple[Float[Array, "batch *shape"], Any]:
    """The part of `sample` from ``times[first]`` to ``times[last]``: returns x and the sampler's memory at the end.

    `memory` is ``sampler.init(x)`` at the start, or what an earlier `stretch` returned: consecutive stretches compute
    the same x_0 as `sample`. `first` and `last` are scalars, indices into `times`, and may be traced. Raises the
    ValueError of `sample`.
    """
    check_times(sampler, times)
    times = jnp.asarray(times)

    def body(i, carry):
        return _step(keys, sampler, carry, i + 1, times[i], times[i + 1])

    return jax.lax.fori_loop(first, last, body, (x, memory))


def sample_path(
    keys: Key[Array, " batch"],
    sampler: Sampler,
    x_T: Float[Array, "batch *shape"],
    times: Num[ArrayLike, " visits"],
    frames: int,
) -> tuple[Float[Array, "batch *shape"], Float[Array, "frames batch *shape"]]:
    """``(x_0, path)``: the result of `sample`, and `frames` states x_t evenly spaced over the steps from x_T to x_0.

    x_T and x_0 are the first and last frames. Memory grows with the number of frames, not of steps. Raises ValueError
    for fewer than 2 frames, or more frames than states, and that of `sample`.
    """
    check_times(sampler, times)
    slots = _slots(jnp.shape(times)[0] - 1, frames)

    def body(carry, at):
        (x, memory), path = carry
        step, slot = at
        x, memory = _step(keys, sampler, (x, memory), *step)
        return ((x, memory), path.at[slot].set(x, mode="drop")), None

    path = jnp.zeros((frames, *x_T.shape), x_T.dtype).at[0].set(x_T)
    ((x_0, _), path), _ = jax.lax.scan(body, ((x_T, sampler.init(x_T)), path), (_steps(times), slots))
    return x_0, path


def frame_times(times: Num[np.ndarray, " visits"], frames: int) -> Num[np.ndarray, " frames"]:
    """The times of the states that `sample_path` returns; raises the same ValueError."""
    return np.asarray(times)[_kept(len(times) - 1, frames)]


def rising(process: Process, sampler: Sampler) -> Sampler:
    """A sampler for times that may also rise: a step to s > t draws x_s from the forward transition q(x_s | x_t).

    For methods that return to a larger t, such as RePaint (Lugmayr et al. 2022). The network is not evaluated in a
    rising step, after which the memory of the sampler starts anew.
    """

    def step(keys, x_t, memory, t, s):
        def up():
            return process.transition(x_t, t, s).sample(keys), sampler.init(x_t)

        return jax.lax.cond(s > t, up, lambda: sampler.step(keys, x_t, memory, t, s))

    return sampler._replace(step=step)


def check_times(sampler: Sampler, times: Num[ArrayLike, " visits"]) -> None:
    """Raises ValueError if a step to a smaller time is not by 1 and the sampler needs that (`Sampler.single_steps`).

    Does nothing for traced times, whose values are unknown.
    """
    if not sampler.single_steps or isinstance(times, Tracer):
        return
    values = np.asarray(times)
    drops = values[:-1] - values[1:]
    if np.any((drops > 0) & (drops != 1)):
        raise ValueError(
            f"--steps {len(drops)}: the variance that this network outputs holds for steps from t to t - 1 only; "
            f"take all {values.max():.0f} steps, or choose --variance, or --sampler ddim, which does not use it"
        )


def _kept(count: int, frames: int) -> Int[np.ndarray, " frames"]:
    """The indices of the states that are kept, of the `count` + 1 states of a walk."""
    if not 2 <= frames <= count + 1:
        raise ValueError(f"frames must be between 2 and {count + 1} for {count} steps, got {frames}")
    return np.rint(np.linspace(0, count, frames)).astype(int)


def _slots(count: int, frames: int) -> Array:
    """For each step the index of the frame that its result fills, or `frames`, an index that is dropped, for none."""
    slots = np.full(count + 1, frames, np.int32)
    slots[_kept(count, frames)] = np.arange(frames)
    return jnp.asarray(slots[1:])


def _steps(times: ArrayLike) -> tuple[Array, Array, Array]:
    """The number n = 1, 2, .., the time t and the time s of each step, as three arrays."""
    times = jnp.asarray(times)
    return jnp.arange(1, len(times)), times[:-1], times[1:]


def _step(keys: Array, sampler: Sampler, carry: tuple[Array, Any], n: Array, t: Array, s: Array) -> tuple[Array, Any]:
    x_t, memory = carry
    return sampler.step(fold(keys, n), x_t, memory, t, s)
