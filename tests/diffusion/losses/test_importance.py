"""t drawn by importance: uniform at first, unbiased always, and of less variance where the terms are uneven."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import T, problem

from ddpm_jax.diffusion import losses

TERMS = np.array([8.0, 0.1, 0.02, 1.0, 0.5])
"""The losses at t = 1..5 of `uneven`."""


def uneven(key, process, parameterization, network, x_0, condition, draw):
    """A loss whose value is known at each t."""
    t = draw(jax.random.fold_in(key, 1), len(x_0), 5)
    return jnp.asarray(TERMS, jnp.float32)[t - 1]


def filled(loss, terms):
    """The history after each term was seen `last` times."""
    t = jnp.tile(jnp.arange(1, len(terms) + 1), loss.last)
    return loss.update(loss.start(len(terms)), losses.Seen(t, jnp.asarray(terms, jnp.float32)[t - 1]))


def test_the_probabilities_are_uniform_until_every_t_has_ten_losses():
    loss = losses.Importance(uneven)
    history, update = loss.start(5), jax.jit(loss.update)
    for t in (*[5, 3, 1, 4] * 25, *[2] * 9):
        np.testing.assert_allclose(loss.probabilities(history), 0.2, rtol=1e-6)
        history = update(history, losses.Seen(jnp.full(1, t), jnp.full(1, TERMS[t - 1], jnp.float32)))
    np.testing.assert_allclose(loss.probabilities(history), 0.2, rtol=1e-6)
    history = update(history, losses.Seen(jnp.full(1, 2), jnp.full(1, 0.1)))
    np.testing.assert_allclose(loss.probabilities(history), 0.999 * TERMS / TERMS.sum() + 0.001 / 5, rtol=1e-5)


def test_losses_of_zero_leave_the_probabilities_uniform():
    loss = losses.Importance(uneven)
    np.testing.assert_allclose(loss.probabilities(filled(loss, np.zeros(5))), 0.2, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_history_has_the_last_losses_of_each_t(batch):
    """As one queue for each t has that takes the batches example by example, also when a batch fills it twice."""
    loss, random = losses.Importance(last=10), np.random.default_rng(batch)
    history, queues = loss.start(3), [deque(maxlen=10) for _ in range(3)]
    update = jax.jit(loss.update)
    for _ in range(2000 // batch):
        t, values = random.integers(1, 4, batch), random.normal(size=batch).astype(np.float32)
        history = update(history, losses.Seen(jnp.asarray(t), jnp.asarray(values)))
        for each, value in zip(t, values, strict=True):
            queues[each - 1].append(value)
    for row, queue in zip(np.asarray(history.losses), queues, strict=True):
        assert sorted(row) == sorted(queue)
    assert int(history.count.min()) >= 10 and int(history.count.max()) < 20  # no run is long enough to overflow it


def estimates(loss, history, count=4000):
    """Estimates of the sum of the terms, each the mean of a batch of eight."""
    given = *problem(), jnp.zeros((8, 1))
    one = jax.jit(jax.vmap(lambda key: loss.recorded(history, key, *given)[0].mean()))
    return np.asarray(one(jax.random.split(jax.random.key(0), count)), np.float64)


def test_the_mean_is_the_sum_of_the_terms_and_the_variance_is_less_than_of_uniform_t():
    loss = losses.Importance(uneven)
    uniform, drawn = estimates(loss, loss.start(5)), estimates(loss, filled(loss, TERMS))
    wrong = estimates(loss, filled(loss, TERMS[::-1]))  # a history that misleads costs variance, but no bias
    for each in (uniform, drawn, wrong):
        assert each.mean() == pytest.approx(TERMS.sum(), abs=5 * each.std() / np.sqrt(len(each)))
    assert drawn.var() < 0.01 * uniform.var() < 0.01 * wrong.var()


def test_t_with_the_least_probability_occur_as_often_as_it_says():
    """Of 400,000 draws with p = 0.001 / 10 about 40 for each of nine t."""
    loss = losses.Importance(lambda *given, draw: draw(None, 0, 0) * 1.0)
    history = filled(loss, [1.0] + [0.0] * 9)

    @jax.jit
    def seen(key):
        return loss.recorded(history, key, *problem(), jnp.zeros((40_000, 1)))[1].t

    counts = sum(np.bincount(seen(key), minlength=11)[2:] for key in jax.random.split(jax.random.key(0), 10))
    assert counts.sum() == pytest.approx(360, abs=5 * np.sqrt(360)) and np.abs(counts - 40).max() < 5 * np.sqrt(40)


def test_for_the_bound_the_mean_is_that_of_uniform_t():
    """With the best network, T times the mean of `variational`, from a history that its own losses filled."""
    process, parameterization, network = problem()
    loss = losses.Importance()
    x_0 = 0.2 + np.sqrt(0.4) * jax.random.normal(jax.random.key(1), (5000, 1, 1, 1))
    given = process, parameterization, network, x_0
    history = loss.start(T)
    recorded = jax.jit(lambda history, key: loss.recorded(history, key, *given))
    uniform, seen = recorded(history, jax.random.key(2))
    drawn, _ = recorded(loss.update(history, seen), jax.random.key(3))
    plain = T * losses.variational(jax.random.key(4), *given)
    for each in (uniform, drawn):
        error = np.hypot(np.std(each), np.std(plain)) / np.sqrt(len(x_0))
        assert np.mean(each) == pytest.approx(np.mean(plain), abs=5 * error)
    assert np.var(drawn) < 0.5 * np.var(uniform)


def test_without_a_history_it_is_a_loss_as_the_others():
    process, parameterization, network = problem()
    x_0 = jax.random.normal(jax.random.key(1), (16, 2, 2, 1))
    loss, given = losses.Importance(), (process, parameterization, network, x_0)
    values, _ = jax.jit(lambda key: loss.recorded(loss.start(T), key, *given))(jax.random.key(0))
    np.testing.assert_allclose(jax.jit(lambda key: loss(key, *given))(jax.random.key(0)), values, rtol=1e-6)
