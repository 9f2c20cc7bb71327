"""Variances of the reverse kernel: the two fixed ones, and a learned one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, parameterizations, schedules

both = pytest.mark.parametrize("variance", [parameterizations.fixed_small, parameterizations.fixed_large])

# t, variance of the small and of the large choice (2020, Section 3.2, with the schedule of that paper), by a float64
# recursion; at t = 1 both are that of the posterior at t = 2, as in the released code
VARIANCES = [
    (1, np.exp(-9.81672513529567), np.exp(-9.81672513529567)),
    (2, 5.4531876613e-05, 1.1991991992e-4),
    (10, 2.38182027823e-4, 2.79279279279e-4),
    (100, 2.03459625949e-3, 2.07207207207e-3),
    (500, 0.0100313554146, 0.01004004004),
    (1000, 0.0199999835266, 0.02),
]


@pytest.fixture
def schedule(x64):
    return schedules.linear(1000, dtype=np.float64)


def test_fixed_variances(schedule):
    t, *expected = np.array(VARIANCES).T
    rules = parameterizations.fixed_small, parameterizations.fixed_large
    found = [rule(schedule, t.astype(int), t.astype(int) - 1, 1) for rule in rules]
    np.testing.assert_allclose(found, expected, rtol=5e-11)


@both
def test_each_example_has_the_variance_of_its_time(variance, schedule):
    t = np.array([1, 2, 500, 1000])
    together = variance(schedule, t, t - 1, 4)
    alone = [variance(schedule, i, i - 1, 3) for i in t]
    np.testing.assert_allclose(together, alone, rtol=1e-14)


@both
def test_of_a_single_step_the_variance_is_beta(variance):
    np.testing.assert_allclose(variance(schedules.from_betas([0.3]), 1, 0, 2), np.full((1, 1), 0.3), rtol=1e-6)


def test_a_learned_variance_that_is_the_fixed_one_changes_nothing():
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    fixed = parameterizations.eps(process, parameterizations.fixed_large)
    learned = parameterizations.learned(process, fixed)
    assert (learned.name, learned.variance) == ("eps", None)
    x_t, output = (jax.random.normal(jax.random.key(i), (3, 4, 4, 2)) for i in (0, 1))
    t = jnp.array([1, 5, 10])
    log_variance = jnp.log(jnp.broadcast_to(fixed.kernel(output, x_t, t, t - 1).variance, x_t.shape))
    both = jnp.concatenate([output, log_variance], axis=-1)
    for ours, theirs in zip(learned.kernel(both, x_t, t, t - 1), fixed.kernel(output, x_t, t, t - 1), strict=True):
        np.testing.assert_allclose(ours, jnp.broadcast_to(theirs, ours.shape), rtol=1e-5)
    np.testing.assert_array_equal(learned.x_0(both, x_t, t), fixed.x_0(output, x_t, t))
    np.testing.assert_array_equal(learned.error(both, x_t, x_t, t), fixed.error(output, x_t, x_t, t))
    clipped = parameterizations.clipped(process, learned).kernel(both, x_t, t, t - 1)
    np.testing.assert_allclose(clipped.variance, jnp.exp(log_variance), rtol=1e-6)
