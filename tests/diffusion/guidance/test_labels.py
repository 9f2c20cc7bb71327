"""Guidance by labels or by a second network: its limits, its number of calls, and Gaussian classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys

from ddpm_jax.diffusion import gaussian, guidance, parameterizations, samplers, schedules

PROCESS = gaussian.process(schedules.linear(1000))
MEANS = np.array([-0.5, 0.5, 0.0], np.float32)
"""Of the two classes, and of "no label"."""


def by_class(calls=None):
    """The best eps for class c, data N(MEANS[c], 0.01); `calls` collects the batch sizes."""

    def network(x_t, t, condition):
        if calls is not None:
            calls.append(len(x_t))
        alpha_bar, one_minus = PROCESS.schedule.at(t, x_t.ndim)
        mean = jnp.asarray(MEANS)[condition].reshape(-1, *(1,) * (x_t.ndim - 1))
        return jnp.sqrt(one_minus) * (x_t - jnp.sqrt(alpha_bar) * mean) / (alpha_bar * 0.01 + one_minus)

    return network


X, LABEL = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)), jnp.array([0, 1, 0, 1])


def guided(scale, **options):
    return guidance.classifier_free(by_class(), scale, 2, **options)(X, 400, LABEL)


def test_scale_1_is_the_class_and_scale_0_is_no_class():
    np.testing.assert_allclose(guided(jnp.float32(1)), by_class()(X, 400, LABEL), atol=1e-6)
    np.testing.assert_allclose(guided(0.0), by_class()(X, 400, jnp.full(4, 2)), atol=1e-6)


def test_each_example_has_its_own_scale_and_time():
    scales, times = jnp.array([0.0, 1.0, 2.0, 3.0]), jnp.array([100, 200, 300, 400])
    together = guidance.classifier_free(by_class(), scales, 2)(X, times, LABEL)
    for i in range(4):
        alone = guidance.classifier_free(by_class(), scales[i], 2)(X[i : i + 1], times[i], LABEL[i : i + 1])
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-6)


def test_one_call_of_twice_the_batch_and_none_more_without_guidance():
    for scale, sizes in ((3.0, [8]), (1, [4]), (jnp.float32(1), [8])):
        calls = []
        guidance.classifier_free(by_class(calls), scale, 2)(X, 400, LABEL)
        assert calls == sizes


def test_a_variance_remains_that_of_the_class():
    def two_outputs(x_t, t, condition):
        return jnp.concatenate([by_class()(x_t, t, condition), condition[:, None] + jnp.zeros_like(x_t)], axis=-1)

    output = guidance.classifier_free(two_outputs, 5.0, 2, channels=3)(X, 400, LABEL)
    np.testing.assert_allclose(output[:, :3], guided(5.0), atol=1e-6)
    np.testing.assert_array_equal(output[:, 3:], jnp.broadcast_to(LABEL[:, None], (4, 3)))


def test_samples_move_away_from_the_mean_of_all_classes():
    """With scale w the mean estimate is free + w (class - free): at the end of the walk that of N(w m, 0.01)."""
    network = guidance.classifier_free(by_class(), jnp.float32(2.0), 2)
    sampler = samplers.ddim(PROCESS, parameterizations.eps(PROCESS), network, LABEL)
    x_0 = jax.jit(lambda x: samplers.sample(keys(4), sampler, x, samplers.times(1000, 200)))(X)
    np.testing.assert_allclose(x_0.mean(axis=1), 2 * MEANS[LABEL], atol=0.2)
    assert np.all(np.abs(np.asarray(x_0).mean(axis=1)) > 0.7)


def test_a_limited_scale_is_1_outside_of_its_levels():
    """The levels sigma / alpha at 1, 500 and 1000 are 0.01, 3.42 and 157."""
    scale = guidance.limited(4.0, PROCESS, 0.5, 10.0)
    assert [float(scale(t)) for t in (1, 500, 1000)] == [1.0, 4.0, 1.0]
    within = guidance.classifier_free(by_class(), scale, 2)
    np.testing.assert_allclose(within(X, 1, LABEL), by_class()(X, 1, LABEL), atol=1e-5)


def test_a_guide_that_is_the_network_itself_changes_nothing():
    network = by_class()
    same = guidance.autoguidance(network, network, 3.0)(X, 400, LABEL)
    np.testing.assert_allclose(same, network(X, 400, LABEL), atol=1e-6)
    free = guidance.autoguidance(network, lambda x, t, c: network(x, t, jnp.full_like(c, 2)), 3.0)(X, 400, LABEL)
    np.testing.assert_allclose(free, guided(3.0), atol=1e-6)


@pytest.mark.parametrize("learned", ["network", "guide"])
def test_a_guide_may_differ_in_the_output_of_a_variance(learned):
    """The first channels are guided as without it, and the others are those of the network."""
    network, other = by_class(), lambda x, t, c: 2 * x

    def with_variance(x, t, c):
        return jnp.concatenate([(network if learned == "network" else other)(x, t, c), x], axis=-1)

    pair = (with_variance, other) if learned == "network" else (network, with_variance)
    found = guidance.autoguidance(*pair, 3.0, channels=3)(X, 400, LABEL)
    plain = guidance.autoguidance(network, other, 3.0)(X, 400, LABEL)
    np.testing.assert_allclose(found[:, :3], plain, atol=1e-6)
    assert found.shape[1] == (6 if learned == "network" else 3)


def test_a_label_is_required():
    with pytest.raises(ValueError, match="a label for each example"):
        guidance.classifier_free(by_class(), 2.0, 2)(X, 400, None)
