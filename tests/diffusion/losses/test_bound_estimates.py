"""Estimates of the bound from some of its terms: unbiased, and each example by its own key and times."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, keys

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.diffusion.parameterizations import fixed_large

T = 19


def small_problem():
    """A process of T steps, a parameterization and a network."""
    process = gaussian.process(schedules.linear(T, 1e-3, 0.3), gaussian.density)
    return process, parameterizations.eps(process, fixed_large), best_eps(process.schedule, 0.4)


IMAGES = np.tanh(np.random.default_rng(0).normal(size=(8, 2, 2, 1))).astype(np.float32)


@cache
def whole_bound():
    return losses.bound(keys(8), *small_problem(), jnp.asarray(IMAGES))


@jax.jit
def compiled(keys, x_0, times):
    return losses.bound(keys, *small_problem(), x_0, times=times)


def test_all_times_are_the_default_and_jit_changes_nothing():
    for found, default in zip(compiled(keys(8), IMAGES, np.arange(T, 1, -1)), whole_bound(), strict=True):
        np.testing.assert_allclose(found, default, rtol=1e-5)


def test_one_time_estimates_the_chain_without_bias():
    """The mean over every choice of one t is the sum over all t: exactly, as a t always sees the same noise."""
    ones = np.stack([compiled(keys(8), IMAGES, np.array([t])).chain.sum(1) for t in range(2, T + 1)])
    np.testing.assert_allclose(ones.mean(0), whole_bound().chain.sum(1), rtol=1e-5)
    assert np.all(np.ptp(ones, axis=0) > 1)


def test_each_example_can_have_times_of_its_own():
    """Six strata of three times, another permutation of them for each example: their mean is the whole again."""
    times = np.random.default_rng(0).permuted(np.tile(np.arange(2, T + 1), (8, 1)), axis=1).T
    parts = [compiled(keys(8), IMAGES, times[i : i + 3]) for i in range(0, T - 1, 3)]
    np.testing.assert_allclose(np.mean([part.total() for part in parts], 0), whole_bound().total(), rtol=1e-5)
    seen = np.concatenate([part.distortion[:, :-1] for part in parts], axis=1)
    expected = np.take_along_axis(np.asarray(whole_bound().distortion), T - times.T, 1)
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


@pytest.mark.parametrize("rows", [[3, 1, 0, 2, 7, 6, 5, 4], [6, 2, 4]], ids=["permuted", "sliced"])
def test_an_example_keeps_its_bound_in_any_batch(rows):
    """Its noise comes from its own key."""
    found = compiled(keys(8)[np.array(rows)], IMAGES[np.array(rows)], np.arange(T, 1, -1))
    for terms, expected in zip(found, whole_bound(), strict=True):
        np.testing.assert_allclose(terms, expected[np.array(rows)], rtol=1e-5)
    assert len(np.unique(whole_bound().chain)) == whole_bound().chain.size


def test_another_key_is_another_draw_of_the_same_bound():
    other = compiled(jax.random.split(jax.random.key(1), 8), IMAGES, np.arange(T, 1, -1))
    assert np.all(np.abs(other.chain / whole_bound().chain - 1) > 1e-5)
    np.testing.assert_allclose(other.prior, whole_bound().prior, rtol=1e-6)


def test_the_condition_reaches_the_network():
    """A network that repeats its condition, given the answer: x_0 without any error."""
    process = small_problem()[0]
    problem = process, parameterizations.x0(process), lambda x_t, t, condition: condition

    @jax.jit
    def evaluated(key, keys, x_0):
        return losses.simple(key, *problem, x_0, x_0), losses.bound(keys, *problem, x_0, x_0).distortion

    loss, distortion = evaluated(jax.random.key(0), keys(8), IMAGES)
    np.testing.assert_array_equal(loss, np.zeros(8))
    np.testing.assert_array_equal(distortion, np.zeros((8, T)))
