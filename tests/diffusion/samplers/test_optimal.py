"""The times with the least bound: known paths, exhaustive search, and no other spacing below them."""

import itertools

import numpy as np
import pytest
from known import forward_variance

from ddpm_jax.diffusion import samplers, schedules
from ddpm_jax.diffusion.parameterizations import analytic, fixed_large, fixed_small

SCHEDULE = schedules.linear(1000)
MIXTURE_ENTROPY = -0.190499379


def errors_of_two(schedule, variance=0.01):
    """Var(x_0 | x_t) of the even mixture of N(-1, variance) and N(1, variance) at t = 0..T, by numerical integration.

    By the law of total variance: that within the clusters, and that between them, E sech^2.
    """
    alpha_bar = np.exp(np.asarray(schedule.log_alpha_bar, np.float64) + schedule.log_alpha_bar_rest)
    noise = np.linspace(-9, 9, 6001)
    weight = np.exp(-(noise**2) / 2) / np.exp(-(noise**2) / 2).sum()

    def error(kept):
        total, mean = kept * variance + 1 - kept, np.sqrt(kept)
        argument = mean / total * (mean + np.sqrt(total) * noise)
        between = ((1 - kept) / total) ** 2 * (weight / np.cosh(np.clip(argument, -300, 300)) ** 2).sum()
        return variance * (1 - kept) / total + between

    return np.array([0.0, *(error(kept) for kept in alpha_bar[1:])])


@pytest.fixture(scope="module")
def errors():
    found = errors_of_two(SCHEDULE)
    np.testing.assert_allclose(found[[1, 100, 500, 1000]], [9.90197049e-5, 0.0152294189, 0.929613654, 1.00995883])
    return found


def costs_of(errors, name):
    """The costs for continuous data, where -log p(x_0 | x_t) is that of a normal distribution."""
    variance = {"beta": forward_variance, "analytic": analytic(errors.astype(np.float32))}[name]
    spread = {"beta": np.asarray(SCHEDULE.one_minus_alpha_bar, np.float64), "analytic": errors}[name]
    decoder = np.append(0.0, (np.log(2 * np.pi * spread[1:]) + errors[1:] / spread[1:]) / 2)
    return samplers.step_costs(SCHEDULE, variance, errors, decoder)


# steps, optimal and even bound in nats, the optimal times: by dynamic programming over a float64 table of another
# program, for the mixture of N(-1, 0.01) and N(1, 0.01)
GOLDEN = [
    ("beta", 5, 0.463899, 1.283699, [0, 31, 60, 97, 145, 1000]),
    ("beta", 10, 0.186465, 0.890317, [0, 19, 32, 46, 62, 80, 100, 123, 152, 195, 1000]),
    ("analytic", 5, 0.000573, 1.260523, [0, 71, 105, 137, 181, 1000]),
    ("analytic", 10, -0.103461, 0.350106, [0, 64, 87, 105, 121, 137, 155, 176, 203, 244, 1000]),
]


@pytest.mark.parametrize(("name", "count", "least", "even", "path"), GOLDEN)
def test_the_best_times_of_two_clusters(errors, name, count, least, even, path):
    costs = costs_of(errors, name)
    times = samplers.best_times(costs, count)
    np.testing.assert_array_equal(times[::-1], path)
    kept = float(SCHEDULE.alpha_bar[-1])
    prior = (kept * 1.01 - kept - np.log1p(-kept)) / 2  # the divergence of q(x_T | x_0), with E x_0^2 = 1.01
    np.testing.assert_allclose(samplers.path_cost(costs, times) + prior, least, atol=1e-6)
    np.testing.assert_allclose(samplers.path_cost(costs, samplers.times(1000, count)) + prior, even, atol=1e-6)
    assert least > MIXTURE_ENTROPY


@pytest.mark.parametrize("count", range(1, 9))
def test_no_path_of_eight_times_is_better(count):
    costs = np.where(np.tri(9, k=-1) > 0, np.random.default_rng(0).normal(size=(9, 9)), np.inf)
    inner = itertools.combinations(range(7, 0, -1), count - 1)
    paths = [np.array([8, *between, 0]) for between in inner]
    best = min(paths, key=lambda times: samplers.path_cost(costs, times))
    np.testing.assert_array_equal(samplers.best_times(costs, count), best)


@pytest.mark.parametrize("count", [1, 2, 7, 50, 1000])
def test_no_other_spacing_has_a_lower_bound(errors, count):
    costs, random = costs_of(errors, "analytic"), np.random.default_rng(count)
    least = samplers.path_cost(costs, samplers.best_times(costs, count))
    spacings = [samplers.SPACINGS[name](SCHEDULE, count) for name in ("even", "quadratic", "linspace")]
    spacings += [np.array([1000, *sorted(random.permutation(np.arange(1, 1000))[: count - 1])[::-1], 0]) for _ in "abc"]
    assert all(samplers.path_cost(costs, times) >= least for times in spacings)


def test_more_steps_lower_the_best_bound_towards_the_entropy(errors):
    costs = costs_of(errors, "analytic")
    bounds = [samplers.path_cost(costs, samplers.best_times(costs, count)) for count in (1, 2, 5, 20, 100, 1000)]
    assert np.all(np.diff(bounds) < 0) and MIXTURE_ENTROPY < bounds[-1] < MIXTURE_ENTROPY + 0.004


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_the_analytic_variance_has_the_least_divergence(errors, factor):
    """Of all variances that the elements share, at strides of any length."""
    t, s = np.array([1000, 900, 400, 30, 2]), np.array([1, 890, 200, 3, 1])

    def divergence(variance):
        constant, slope = samplers.step_terms(SCHEDULE, variance, t, s)
        return constant + slope * errors[t]

    best = analytic(errors.astype(np.float32))
    for other in (lambda *step: factor * best(*step), fixed_small, fixed_large):
        assert np.all(divergence(best) < divergence(other) * (1 + 1e-6))


def test_costs_are_for_one_schedule_and_its_numbers_of_steps(errors):
    spacing = samplers.optimal(costs_of(errors, "beta"))
    with pytest.raises(ValueError, match="the costs are those of 1000 steps, the schedule has 30"):
        spacing(schedules.linear(30), 5)
    with pytest.raises(ValueError, match="--steps must be between 1 and 1000, got 1001"):
        spacing(SCHEDULE, 1001)


def test_costs_that_are_not_numbers_are_avoided():
    """Such as those at a t where the estimate of a network overflows."""
    terms = np.full(11, 0.1)
    terms[5] = np.nan
    costs = samplers.step_costs(schedules.linear(10, 0.01, 0.3), fixed_large, errors=terms, decoder=terms)
    assert all(5 not in samplers.best_times(costs, count) for count in range(1, 10))
