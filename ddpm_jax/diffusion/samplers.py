"""From noise to data: reverse kernels, the steps made of them, and the one `lax.scan` that walks the steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.diffusion.distributions import Distribution, fold
from ddpm_jax.diffusion.losses import Network
from ddpm_jax.diffusion.parameterizations import Parameterization
from ddpm_jax.diffusion.process import Process

Kernel = Callable[[Array, ArrayLike, ArrayLike], Distribution]
"""``(x_t, t, s)`` -> p(x_s | x_t), s < t."""


class Sampler(NamedTuple):
    """A rule for one step, with whatever it remembers of the steps before."""

    init: Callable[[Array], Any]
    """``init(x_T)`` -> memory."""
    step: Callable[[Array, Array, Any, Array, Array], tuple[Array, Any]]
    """``step(keys, x_t, memory, t, s)`` -> (x_s, memory)."""


def linear(fraction: np.ndarray) -> np.ndarray:
    """Times evenly spaced over 0..T."""
    return fraction


def quadratic(fraction: np.ndarray) -> np.ndarray:
    """Times dense near the data (Song et al. 2021, Appendix D.2: better for CIFAR-10)."""
    return fraction**2


def times(
    num_steps: int, count: int, spacing: Callable[[np.ndarray], np.ndarray] = linear
) -> Int[np.ndarray, " {count}+1"]:
    """``T = t_0 > t_1 > ... > t_count = 0``: the times that a sampler of `count` steps visits.

    `spacing` maps fractions of the way from the data, 0..1, to fractions of T and must not decrease.
    Raises ValueError unless 1 <= count <= num_steps.
    """
    if not 1 <= count <= num_steps:
        raise ValueError(f"a schedule of {num_steps} steps cannot be walked in {count}: choose 1 to {num_steps}")
    index = np.arange(count + 1)
    wanted = np.rint(num_steps * spacing(index / count)).astype(np.int32)
    # room is left for the steps below and above, so that no time comes twice
    bounded = np.clip(wanted, index, num_steps - count + index)
    return (np.maximum.accumulate(bounded - index) + index)[::-1].astype(np.int32)


def reverse(parameterization: Parameterization, network: Network, condition: Array | None = None) -> Kernel:
    """p(x_s | x_t) as the parameterization reads it off the network (Ho et al. 2020, Eq. 1)."""
    return lambda x_t, t, s: parameterization.kernel(network(x_t, t, condition), x_t, t, s)


def ancestral(kernel: Kernel) -> Sampler:
    """Draws each x_s from the kernel, and takes its mode at the last step (Ho et al. 2020, Algorithm 2)."""

    def step(keys, x_t, memory, t, s):
        dist = kernel(x_t, t, s)
        return jnp.where(s > 0, dist.sample(keys), dist.mode()), memory

    return Sampler(init=lambda x_T: None, step=step)


def ddpm(
    process: Process, parameterization: Parameterization, network: Network, condition: Array | None = None
) -> Sampler:
    """Ancestral sampling of the parameterization's own kernel. Has the arguments of `ddim`, to stand in its place."""
    del process  # bound in the parameterization
    return ancestral(reverse(parameterization, network, condition))


def ddim(
    process: Process,
    parameterization: Parameterization,
    network: Network,
    condition: Array | None = None,
    eta: ArrayLike = 0.0,
) -> Sampler:
    """The bridges of Song et al. 2021, Eq. 12: deterministic at eta = 0, ancestral with `fixed_small` at eta = 1.

    Where x_0 is clipped, the noise that is kept is what leads from the clipped x_0 to x_t (in diffusers:
    ``use_clipped_model_output=True``).
    """

    def kernel(x_t, t, s):
        x_0 = parameterization.x_0(network(x_t, t, condition), x_t, t)
        return process.posterior(x_t, x_0, t, s, eta)

    return ancestral(kernel)


def sample(
    keys: Key[Array, " batch"], sampler: Sampler, x_T: Float[Array, "batch *shape"], times: Int[ArrayLike, " visits"]
) -> Float[Array, "batch *shape"]:
    """Walks `times` from x_T down to x_0 in one `lax.scan`. Example i depends on ``keys[i]`` and ``x_T[i]`` only."""

    def body(carry, pair):
        return _walk(keys, sampler, carry, *pair), None

    (x_0, _), _ = jax.lax.scan(body, (x_T, sampler.init(x_T)), _pairs(times))
    return x_0


def stretch(
    keys: Key[Array, " batch"],
    sampler: Sampler,
    x: Float[Array, "batch *shape"],
    times: Int[ArrayLike, " visits"],
    first: ArrayLike,
    last: ArrayLike,
) -> Float[Array, "batch *shape"]:
    """The part of `sample` from x at ``times[first]`` down to ``times[last]``; both ends may be traced."""
    times = jnp.asarray(times)

    def body(i, carry):
        return _walk(keys, sampler, carry, times[i], times[i + 1])

    return jax.lax.fori_loop(first, last, body, (x, sampler.init(x)))[0]


def sample_path(
    keys: Key[Array, " batch"],
    sampler: Sampler,
    x_T: Float[Array, "batch *shape"],
    times: Int[ArrayLike, " visits"],
    frames: int,
) -> tuple[Float[Array, "batch *shape"], Float[Array, "frames batch *shape"]]:
    """`sample`, and `frames` (at least 2) of the states on its way, evenly spaced from x_T to x_0, both included.

    Raises ValueError for more frames than states, or fewer than 2. Memory grows with the frames, not with the steps.
    """
    slots = _slots(jnp.shape(times)[0] - 1, frames)

    def body(carry, step):
        (x, memory), path = carry
        pair, slot = step
        x, memory = _walk(keys, sampler, (x, memory), *pair)
        return ((x, memory), path.at[slot].set(x, mode="drop")), None

    path = jnp.zeros((frames, *x_T.shape), x_T.dtype).at[0].set(x_T)
    ((x_0, _), path), _ = jax.lax.scan(body, ((x_T, sampler.init(x_T)), path), (_pairs(times), slots))
    return x_0, path


def frame_times(times: Int[np.ndarray, " visits"], frames: int) -> Int[np.ndarray, " frames"]:
    """The times of the frames that `sample_path` keeps."""
    return np.asarray(times)[_kept(len(times) - 1, frames)]


def _kept(count: int, frames: int) -> np.ndarray:
    """Which of the `count` + 1 states are kept."""
    if not 2 <= frames <= count + 1:
        raise ValueError(
            f"{count} steps pass {count + 1} states: {frames} frames cannot be kept, choose 2 to {count + 1}"
        )
    return np.rint(np.linspace(0, count, frames)).astype(int)


def _slots(count: int, frames: int) -> Array:
    """For each step the frame that its result fills, or one past the last: written nowhere."""
    slots = np.full(count + 1, frames, np.int32)
    slots[_kept(count, frames)] = np.arange(frames)
    return jnp.asarray(slots[1:])


def _pairs(times: ArrayLike) -> tuple[Array, Array]:
    times = jnp.asarray(times)
    return times[:-1], times[1:]


def _walk(keys: Array, sampler: Sampler, carry: tuple[Array, Any], t: Array, s: Array) -> tuple[Array, Any]:
    x_t, memory = carry
    return sampler.step(fold(keys, t), x_t, memory, t, s)
