"""Variances of the reverse kernel: the two fixed ones, and a learned one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, parameterizations, schedules

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


@pytest.mark.parametrize(
    ("output", "fixed"), [(1.0, parameterizations.fixed_large), (-1.0, parameterizations.fixed_small)]
)
@pytest.mark.parametrize("stride", [1, 7])
def test_the_ends_of_the_learned_range_are_the_fixed_variances_of_the_step(output, fixed, stride):
    """At any stride, so that it respaces by itself; at the step to the data the upper end is beta."""
    process = gaussian.process(schedules.cosine(100))
    learned = parameterizations.learned_range(process, parameterizations.eps(process, fixed))
    assert not learned.single_steps
    x_t, t = jnp.ones((3, 2, 2, 1)), jnp.array([20, 50, 100])
    both = jnp.concatenate([x_t, jnp.full_like(x_t, output)], axis=-1)
    found, expected = (
        made.kernel(given, x_t, t, t - stride)
        for made, given in ((learned, both), (parameterizations.eps(process, fixed), x_t))
    )
    np.testing.assert_allclose(found.variance, jnp.broadcast_to(expected.variance, x_t.shape), rtol=1e-5)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)


def test_the_middle_of_the_learned_range_is_the_geometric_mean():
    process = gaussian.process(schedules.linear(100))
    learned = parameterizations.learned_range(process, parameterizations.eps(process))
    both = jnp.concatenate([jnp.ones((1, 2)), jnp.zeros((1, 2))], axis=-1)
    low, high = (
        fixed(process.schedule, 40, 39, 2) for fixed in (parameterizations.fixed_small, parameterizations.fixed_large)
    )
    found = learned.kernel(both, jnp.ones((1, 2)), 40, 39).variance
    np.testing.assert_allclose(found, jnp.broadcast_to(jnp.sqrt(low * high), (1, 2)), rtol=1e-5)


@both
def test_a_long_step_to_the_data_has_the_variance_of_the_forward_one(variance, schedule):
    t = np.array([2, 500, 1000])
    np.testing.assert_allclose(variance(schedule, t, np.zeros(3, int), 1), schedule.one_minus_alpha_bar[t], rtol=1e-12)


# t, E eps^2 per element of the best predictor of the noise, for data N(0, 0.25) and the schedule of 2020 (Bao et al.
# 2022, Eq. 8, of which it is (1 - alpha_bar_t) Gamma_t)
NOISE = [(1, 0.00039988004), (100, 0.31470171790), (500, 0.97912267045)]


@pytest.mark.parametrize(("t", "noise"), NOISE)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_the_analytic_variance_is_that_of_the_past_of_a_gaussian(t, noise, share, schedule):
    """Var(x_s | x_t), by conditioning one of two Gaussians on the other; the error is that of Bao et al. 2022."""
    s, kept, lost = int(share * t), schedule.alpha_bar, schedule.one_minus_alpha_bar
    errors = np.zeros(1001)
    errors[t] = lost[t] / kept[t] * (1 - noise)
    of_s, of_t = (kept[each] * 0.25 + lost[each] for each in (s, t))
    expected = of_s - kept[t] / kept[s] * of_s**2 / of_t
    found = parameterizations.analytic(errors)(schedule, t, s, 2)
    np.testing.assert_allclose(found, np.full((1, 1), expected), rtol=2e-6)


def test_each_example_has_the_analytic_variance_of_its_time(schedule):
    variance = parameterizations.analytic(np.linspace(0, 1, 1001))
    t = np.array([1, 2, 500, 1000])
    together = variance(schedule, t, t - 1, 4)
    np.testing.assert_allclose(together, [variance(schedule, i, i - 1, 3) for i in t], rtol=1e-14)
    between = variance(schedule, 500.5, 0, 1)  # at s = 0 the error itself
    np.testing.assert_allclose(between, [0.5005], rtol=1e-12)


@pytest.mark.parametrize("kind", ["eps", "clipped", "learned_range", "learned"])
def test_a_chosen_variance_takes_the_place_of_any_other(kind):
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    plain = parameterizations.eps(process)
    made = plain if kind == "eps" else getattr(parameterizations, kind)(process, plain)
    output = jax.random.normal(jax.random.key(0), (3, 2, 2, 2 if "learned" in kind else 1))
    x_t, t, s = jnp.ones((3, 2, 2, 1)), jnp.array([4, 5, 10]), jnp.array([0, 2, 9])
    chosen = parameterizations.with_variance(made, parameterizations.fixed_large)
    assert not chosen.single_steps
    found, old = chosen.kernel(output, x_t, t, s), made.kernel(output, x_t, t, s)
    np.testing.assert_array_equal(found.mean, old.mean)
    np.testing.assert_array_equal(found.variance, parameterizations.fixed_large(process.schedule, t, s, 4))


def test_the_errors_of_an_analytic_variance_compile_nothing_anew():
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    kernel = jax.jit(lambda made, output, x_t, t, s: made.kernel(output, x_t, t, s))
    x, found = jnp.ones((1, 2)), []
    for scale in (0.1, 0.2):
        errors = scale * np.arange(11, dtype=np.float32)
        made = parameterizations.with_variance(parameterizations.eps(process), parameterizations.analytic(errors))
        found.append(kernel(made, x, x, 5, 0).variance)
    np.testing.assert_allclose(found, [[[0.5]], [[1.0]]], rtol=1e-6)
    assert kernel._cache_size() == 1


def test_bits_have_no_variance_to_choose():
    process = binomial.process(schedules.steady(10))
    with pytest.raises(ValueError, match="a binomial process have no variance"):
        parameterizations.with_variance(parameterizations.logits(process), parameterizations.fixed_large)
