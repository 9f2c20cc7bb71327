"""The probability-flow ODE: densities that are known exactly, and the order of its solver."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from known import best_eps, best_eps_of_two, keys

from ddpm_jax.diffusion import binomial, gaussian, ode, parameterizations, schedules

T = 1000
POINTS = np.array([[-1.2], [-0.9], [0.3], [1.05]])


def process():
    return gaussian.process(schedules.linear(T, dtype=np.float64))


def solve(network, x, **options):
    parameterization = parameterizations.eps(process())
    return ode.log_likelihood(keys(len(x)), process(), parameterization, network, jnp.asarray(x), **options)


def shares(t):
    """alpha_bar_t and 1 - alpha_bar_t."""
    return [float(value) for value in process().schedule.at(t, 0)]


@pytest.mark.parametrize("variance", [1.0, 0.25])
def test_density_of_gaussian_data(variance, x64):
    """(x_t - sqrt(alpha_bar_t) m) / deviation_t is constant along the flow, so x_T and the volume are known."""
    (start, noise_start), (stop, noise_stop) = shares(1), shares(T)
    first, last = np.sqrt(start * variance + noise_start), np.sqrt(stop * variance + noise_stop)
    x = np.random.default_rng(0).normal(size=(4, 3))
    x_T = np.sqrt(stop) * 0.3 + last * (x - np.sqrt(start) * 0.3) / first
    exact = (norm.logpdf(x_T) + np.log(last / first)).sum(axis=1)
    found = solve(best_eps(process().schedule, variance, mean=0.3), x, tolerance=1e-6)
    np.testing.assert_allclose(found.log_prob, exact, atol=1e-4)


def of_two(function, x, t):
    """The density or distribution function at t of the even mixture of N(-1, 0.01) and N(1, 0.01)."""
    alpha_bar, one_minus = shares(t)
    scale = np.sqrt(0.01 * alpha_bar + one_minus)
    return sum(function(x, centre * np.sqrt(alpha_bar), scale) for centre in (-1, 1)) / 2


def exact_of_two(x):
    """log p(x_1), since the flow keeps the distribution function: F_T(x_T) = F_1(x_1), inverted by bisection."""
    low, high = np.full(x.shape, -12.0), np.full(x.shape, 12.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = of_two(norm.cdf, middle, T) < of_two(norm.cdf, x, 1)
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return norm.logpdf(low) + np.log(of_two(norm.pdf, x, 1)) - np.log(of_two(norm.pdf, low, T))


def test_density_of_a_mixture(x64):
    found = solve(best_eps_of_two(process().schedule), POINTS, tolerance=1e-6)
    np.testing.assert_allclose(found.log_prob, exact_of_two(POINTS[:, 0]), atol=1e-4)


@pytest.mark.slow
def test_error_falls_at_the_order_of_the_solver(x64):
    """Dopri5 is of fifth order."""
    network, exact = best_eps_of_two(process().schedule), exact_of_two(POINTS[:, 0])
    coarse, fine = (np.abs(solve(network, POINTS, steps=steps).log_prob - exact).max() for steps in (200, 400))
    assert coarse / fine > 2**4.5


def test_signal_is_not_lost_near_T(x64):
    """Cosine, alpha_bar_T = 2e-9, a network that is wrong by 1 %: float32 finds log p(x_1) of float64."""
    found = []
    for dtype in (np.float32, np.float64):
        chain = gaussian.process(schedules.cosine(T, dtype=dtype))
        best = best_eps(chain.schedule, 0.25)
        parts = chain, parameterizations.eps(chain), lambda x_t, t, condition, best=best: 1.01 * best(x_t, t, condition)
        found.append(ode.log_likelihood(keys(4), *parts, jnp.asarray(POINTS, dtype), tolerance=1e-5).log_prob)
    np.testing.assert_allclose(*found, atol=2e-3)


def test_each_example_has_steps_of_its_own():
    """An example alone has the same log p and the same number of calls as beside others, which need more."""
    schedule = schedules.linear(T)
    parts = gaussian.process(schedule), parameterizations.eps(gaussian.process(schedule)), best_eps_of_two(schedule)
    x = jnp.asarray(POINTS, jnp.float32)
    together = ode.log_likelihood(keys(4), *parts, x, tolerance=1e-3)
    alone = ode.log_likelihood(keys(4)[:1], *parts, x[:1], tolerance=1e-3)
    assert len(set(together.calls.tolist())) > 1
    assert together.calls[0] == alone.calls[0]
    np.testing.assert_allclose(together.log_prob[0], alone.log_prob[0], rtol=1e-5)


def test_divergence_is_unbiased_for_coupled_dimensions(x64):
    """Correlated Gaussian data: J is not diagonal, so an estimate depends on the signs and their mean is exact."""
    covariance = np.array([[1.0, 0.6], [0.6, 0.5]])
    schedule = process().schedule

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, 0)
        marginal = alpha_bar * covariance + one_minus * np.eye(2)
        return jnp.sqrt(one_minus) * x_t @ jnp.linalg.inv(marginal)

    x = np.array([0.4, -0.7])
    found = solve(network, np.tile(x, (64, 1)), tolerance=1e-5).log_prob
    alpha_bar, one_minus = shares(1)
    marginal = alpha_bar * covariance + one_minus * np.eye(2)
    exact = -(x @ np.linalg.solve(marginal, x) + np.log(np.linalg.det(2 * np.pi * marginal))) / 2
    assert found.std() > 0.01
    assert abs(found.mean() - exact) < 4 * found.std() / 8 + 1e-3


def test_only_gaussian_processes_have_a_flow():
    bits = binomial.process(schedules.steady(10))
    with pytest.raises(ValueError, match="needs a Gaussian process"):
        ode.log_likelihood(
            keys(1), bits, parameterizations.eps(process()), best_eps(process().schedule, 1.0), jnp.zeros((1, 2))
        )
