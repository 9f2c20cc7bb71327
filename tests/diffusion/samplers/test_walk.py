"""Walks over times: one scan, whole or in stretches, with states kept on the way; what a sample depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import TIMES, T, keys, problem, start

from ddpm_jax.diffusion import samplers
from ddpm_jax.diffusion.types import Sampler


@jax.jit
def ddim(keys, x_T, times, eta):
    return samplers.sample(keys, samplers.ddim(*problem(), eta=eta), x_T, times)


def test_a_sample_depends_on_its_own_key_and_noise_only():
    """Three of eight are what they are alone."""
    whole = ddim(keys(8), start(), TIMES, 0.7)
    part = ddim(keys(8)[2:5], start()[2:5], TIMES, 0.7)
    np.testing.assert_allclose(part, whole[2:5], rtol=1e-5, atol=1e-6)


def test_another_key_changes_its_own_sample_only():
    before = ddim(keys(8), start(), TIMES, 0.7)
    mixed = jax.random.wrap_key_data(jax.random.key_data(keys(8)).at[3].set(jax.random.key_data(keys(8, seed=1))[3]))
    changed = np.any(np.asarray(before != ddim(mixed, start(), TIMES, 0.7)), axis=(1, 2, 3))
    assert changed.tolist() == [i == 3 for i in range(8)]


def equations(jaxpr):
    """All of them, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


COUNT, FRAMES = 23, 5


def programs():
    """The programs of `sample` and of `sample_path`, over 23 steps."""
    sampler, times = samplers.ddim(*problem(), eta=0.5), jnp.asarray(samplers.times(T, COUNT))
    yield jax.make_jaxpr(lambda keys, x_T, times: samplers.sample(keys, sampler, x_T, times))(keys(8), start(), times)
    yield jax.make_jaxpr(lambda keys, x_T, times: samplers.sample_path(keys, sampler, x_T, times, FRAMES))(
        keys(8), start(), times
    )


def test_a_walk_is_one_scan():
    for program in programs():
        loops = [e.primitive.name for e in equations(program.jaxpr) if e.primitive.name in ("scan", "while", "for")]
        assert loops == ["scan"]


def test_memory_does_not_grow_with_the_steps():
    """Only the times, their numbers and the frames that they fill are as long as the walk."""
    for program in programs():
        results = [value.aval for equation in equations(program.jaxpr) for value in equation.outvars]
        grown = [aval for aval in results if COUNT in aval.shape or COUNT + 1 in aval.shape]
        assert all(aval.ndim == 1 and jnp.issubdtype(aval.dtype, jnp.integer) for aval in grown)
        assert any(aval.shape == (8, 2, 2, 1) for aval in results)


def path(frames, times=TIMES):
    sampler = samplers.ddim(*problem(), eta=0.7)
    return jax.jit(lambda keys, x_T: samplers.sample_path(keys, sampler, x_T, times, frames))(keys(8), start())


def test_frames_are_the_states_of_the_walk():
    """Four frames of six steps: x_T, the states after two and four, as walks that end there find them, and x_0."""
    x_0, frames = path(4)
    np.testing.assert_array_equal(frames[0], start())
    for frame, stop in ((1, 3), (2, 5), (3, 7)):
        state = ddim(keys(8), start(), TIMES[:stop], 0.7)
        np.testing.assert_allclose(frames[frame], state, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(frames[-1], x_0)
    np.testing.assert_array_equal(samplers.frame_times(TIMES, 4), TIMES[::2])


def test_a_frame_for_each_state_is_the_most():
    """And each is another one."""
    _, frames = path(7)
    assert len({np.asarray(frame).tobytes() for frame in frames}) == 7


@pytest.mark.parametrize("frames", [1, 8])
def test_frames_beyond_the_states_are_refused(frames):
    """Six steps have seven states: an eighth frame would stay black, and x_T and x_0 take two."""
    with pytest.raises(ValueError, match=f"frames must be between 2 and 7 for 6 steps, got {frames}"):
        path(frames)


def averaging(eta=0.7) -> Sampler:
    """DDIM with the average of the last two estimates of x_0 in the place of the last one."""
    process, parameterization, network = problem()

    def step(keys, x_t, memory, t, s):
        before, any_before = memory
        x_0 = parameterization.x_0(network(x_t, t, None), x_t, t)
        mixed = jnp.where(any_before, (x_0 + before) / 2, x_0)
        dist = process.posterior(x_t, mixed, t, s, eta)
        return jnp.where(s > 0, dist.sample(keys), dist.mode()), (x_0, jnp.array(True))

    return Sampler(lambda x_T: (jnp.zeros_like(x_T), jnp.array(False)), step)


@jax.jit
def stretch(keys, x, memory, first, last):
    return samplers.stretch(keys, averaging(), x, memory, TIMES, first, last)


def in_pieces(cuts, remembering=True):
    """The walk with the averaging sampler, cut at these numbers of steps."""
    x, memory = start(), averaging().init(start())
    for first, last in zip([0, *cuts], [*cuts, 6], strict=True):
        x, memory = stretch(keys(8), x, memory, first, last)
        memory = memory if remembering else averaging().init(x)
    return x


def test_a_walk_in_stretches_is_the_whole_walk():
    """Bit for bit, for a sampler that remembers, wherever it is cut; without its memory it is another walk."""
    whole = in_pieces([])
    for cuts in ([3], [1, 5], [1, 2, 3, 4, 5], [0, 6]):
        np.testing.assert_array_equal(in_pieces(cuts), whole)
    assert np.all(np.asarray(in_pieces([3], remembering=False) != whole))
    sampled = jax.jit(lambda keys, x_T: samplers.sample(keys, averaging(), x_T, TIMES))(keys(8), start())
    np.testing.assert_allclose(whole, sampled, rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(whole - ddim(keys(8), start(), TIMES, 0.7)) > 1e-5)


def test_a_time_that_is_visited_twice_has_new_noise_there():
    """A sampler that adds its noise up: two visits of one step have two independent draws, not one doubled."""
    noisy = Sampler(lambda x_T: None, lambda keys, x, memory, t, s: (x + noise_of(keys, x.shape[1:]), memory))
    keys_, zeros = keys(4000), jnp.zeros((4000, 1))

    def drawn(*times):
        return np.asarray(samplers.sample(keys_, noisy, zeros, np.array(times)))

    one, two = drawn(7, 5), drawn(7, 5, 7, 5)
    other = drawn(7, 5, 7) - one
    assert abs(one.var() - 1) < 0.1 and abs(two.var() - 3) < 0.3
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.07
    np.testing.assert_array_equal(drawn(3, 2), one)  # the noise is that of the number of the step, at any times


def noise_of(keys, shape):
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
