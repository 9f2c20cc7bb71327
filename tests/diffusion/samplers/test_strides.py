"""Ancestral sampling in strides: the kernels that have the right variance there, and the one that has none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, keys

from ddpm_jax.diffusion import binomial, gaussian, guidance, parameterizations, samplers, schedules
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small

T = 1000
COUNTS = (10, 50)


def process():
    return gaussian.process(schedules.linear(T, dtype=np.float64), gaussian.density)


def spreads(parameterization, network, data_variance):
    """The variance of x_s over that of the data at that s: at the last s > 0 of 10 steps, and of 50.

    The kernel's mean is affine in x_t: its values at 0 and 1, for all steps at once, carry the variance along.
    """
    walks = [samplers.times(T, count)[:-1] for count in COUNTS]
    t, s = (np.concatenate([walk[part] for walk in walks]) for part in (slice(-1), slice(1, None)))
    kernel = samplers.reverse(parameterization, network)
    at_0, at_1 = (kernel(jnp.full((len(t), 1), x), t, s) for x in (0.0, 1.0))
    alpha_bar, one_minus = parameterization.process.schedule.at(s, 2)
    true = alpha_bar * data_variance + one_minus
    rows = np.broadcast_arrays((at_1.mean - at_0.mean) ** 2, at_0.variance, true)
    found = []
    for walk in np.split(np.stack(rows)[..., 0], [len(walks[0]) - 1], axis=1):
        variance = 1.0  # the walk starts at N(0, 1), which is not quite x_T: alpha_bar_T is 4e-5
        for shrunk, noise in walk[:2].T:
            variance = shrunk * variance + noise
        found.append(variance / walk[2, -1])
    return np.array(found)


def network_of(name, made, data_variance):
    """The best output for data N(0, data_variance): each parameterization is affine in its output."""
    eps = best_eps(made.schedule, data_variance)

    def network(x_t, t, condition):
        noise = eps(x_t, t, condition)
        clean = parameterizations.eps(made).x_0(noise, x_t, t)
        alpha_bar, one_minus = made.schedule.at(t, x_t.ndim)
        return {
            "eps": noise,
            "x0": clean,
            "v": jnp.sqrt(alpha_bar) * noise - jnp.sqrt(one_minus) * clean,
            "mean": made.posterior(x_t, clean, t, t - 1).mean,
        }[name]

    return network


each_kind = pytest.mark.parametrize("kind", ["eps", "x0", "v", "mean"])


@each_kind
def test_a_fixed_variance_is_right_at_any_stride_for_the_data_it_is_for(kind, x64):
    """The small one for data at a point, the large one for data of unit variance (Ho et al. 2020, Section 3.2)."""
    made = process()
    for variance, data in ((fixed_small, 0.0), (fixed_large, 1.0)):
        parameterization = getattr(parameterizations, kind)(made, variance)
        np.testing.assert_allclose(spreads(parameterization, network_of(kind, made, data), data), 1, rtol=1e-3)


def test_the_two_fixed_variances_bound_that_of_other_data(x64):
    made, data = process(), 0.25
    network = best_eps(made.schedule, data)
    small, large = (
        spreads(parameterizations.eps(made, variance), network, data) for variance in (fixed_small, fixed_large)
    )
    assert np.all((small > 0.5) & (small < 1) & (large > 1) & (large < 1.5))


@pytest.mark.parametrize("data", [0.0, 0.25, 1.0])
def test_the_analytic_variance_is_right_at_any_stride_for_data_of_any_variance(data, x64):
    made = process()
    schedule = made.schedule
    errors = schedule.one_minus_alpha_bar * data / (schedule.alpha_bar * data + schedule.one_minus_alpha_bar + 1e-300)
    parameterization = parameterizations.with_variance(parameterizations.eps(made), parameterizations.analytic(errors))
    np.testing.assert_allclose(spreads(parameterization, best_eps(schedule, data), data), 1, rtol=1e-3)


@pytest.mark.parametrize("kind", ["shrinking", "shifted"])
@pytest.mark.parametrize("data", [0.25, 1.0])
def test_the_kernels_of_2015_lie_between_the_truth_and_the_large_variance(kind, data, x64):
    """Their log odds are those of the stride plus what the network adds for one step, which is 0 for unit variance."""
    made = process()
    parameterization = {
        "shrinking": parameterizations.shrinking,
        "shifted": lambda made: parameterizations.shifted(made, 1),
    }[kind](made)

    def network(x_t, t, condition):
        """The exact mean and variance of x_{t-1} given x_t, as z_mu and z_Sigma."""
        alpha, beta = made.schedule.between(t - 1, t, x_t.ndim)
        alpha_bar, one_minus = made.schedule.at(t - 1, x_t.ndim)
        before = alpha_bar * data + one_minus
        after = alpha * before + beta
        mean, variance = jnp.sqrt(alpha) * before / after * x_t, before * beta / after
        shift = jnp.log(variance) - jnp.log1p(-variance) - jnp.log(beta) + jnp.log1p(-beta)
        root = jnp.sqrt(1 - variance)
        z_mu = {
            "shrinking": (mean - root * x_t) / (1 - root),
            "shifted": (mean - jnp.sqrt(alpha) * x_t) / jnp.sqrt(beta),
        }[kind]
        return jnp.concatenate([z_mu, jnp.broadcast_to(shift, x_t.shape)], axis=-1)

    found = spreads(parameterization, network, data)
    large = spreads(parameterizations.eps(made, fixed_large), best_eps(made.schedule, data), data)
    assert np.all((found > 1 - 1e-3) & (found < large + 1e-3))


def test_bits_that_are_independent_are_exact_at_any_stride(x64):
    """Ones with probability 0.8: so they are at the end, to the expectation of the last step."""
    made, share = binomial.process(schedules.steady(20, np.float64), 0.3), 0.8

    def network(x_t, t, condition):
        zero, one = (made.marginal(jnp.full_like(x_t, bit), t) for bit in (0.0, 1.0))
        odds = jnp.where(x_t > 0.5, one.one / zero.one, one.zero / zero.zero)
        return jnp.log(odds * share / (1 - share))

    kernel, times = samplers.reverse(parameterizations.logits(made), network), samplers.times(20, 5)
    if_zero, if_one = (kernel(jnp.full((5, 1), bit), times[:-1], times[1:]).one for bit in (0.0, 1.0))
    one = 0.3  # x_T is all noise
    for after_zero, after_one in zip(if_zero, if_one, strict=True):
        one = (1 - one) * after_zero + one * after_one
    np.testing.assert_allclose(one, share, rtol=1e-9)


def learned(made):
    return parameterizations.learned(made, parameterizations.eps(made))


KINDS = {
    "learned": learned,
    "clipped": lambda made: parameterizations.clipped(made, learned(made)),
    "unclipped": lambda made: parameterizations.clipped(made, learned(made)).unclipped(),
    "fixed_last": lambda made: parameterizations.fixed_last(made, learned(made)),
}


def two_outputs(x_t, t, condition):
    return jnp.concatenate([0.1 * x_t, jnp.full_like(x_t, -3.0)], axis=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_variance_of_single_steps_is_refused_in_strides(kind):
    made = gaussian.process(schedules.linear(20, 0.01, 0.3))
    sampler = samplers.ddpm(made, KINDS[kind](made), two_outputs)
    x_T, all_steps, some = jnp.ones((2, 3)), samplers.times(20, 20), samplers.times(20, 5)
    for wrapped in (sampler, guidance.inpaint(sampler, made, x_T, jnp.zeros(3, bool)), samplers.rising(made, sampler)):
        for walk in (
            lambda times, wrapped=wrapped: samplers.sample(keys(2), wrapped, x_T, times),
            lambda times, wrapped=wrapped: samplers.sample_path(keys(2), wrapped, x_T, times, 2)[0],
            lambda times, wrapped=wrapped: samplers.stretch(keys(2), wrapped, x_T, None, times, 0, len(times) - 1)[0],
        ):
            with pytest.raises(
                ValueError, match=r"--steps 5: .* take all 20 steps, or choose --variance, or --sampler ddim"
            ):
                walk(some)
    assert np.isfinite(samplers.sample(keys(2), sampler, x_T, all_steps)).all()


def test_times_that_rise_are_no_strides():
    """RePaint takes single steps down, and any step up."""
    made = gaussian.process(schedules.linear(20, 0.01, 0.3))
    sampler = samplers.rising(made, samplers.ddpm(made, learned(made), two_outputs))
    times = np.concatenate([np.arange(20, 4, -1), np.arange(10, -1, -1)])
    assert np.isfinite(samplers.sample(keys(2), sampler, jnp.ones((2, 3)), times)).all()


def test_a_stride_that_is_not_known_beforehand_has_no_variance():
    """Traced times cannot be refused: the result is NaN, not a sample with too little noise."""
    made = gaussian.process(schedules.linear(20, 0.01, 0.3))
    sampler = samplers.ddpm(made, learned(made), two_outputs)
    draw = jax.jit(lambda times: samplers.sample(keys(2), sampler, jnp.ones((2, 3)), times))
    assert np.isnan(draw(samplers.times(20, 5))).all()
    assert np.isfinite(draw(samplers.times(20, 20))).all()


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim_strides_over_a_learned_variance(eta):
    """It uses the estimate of x_0 alone: the samples are those without the learned variance."""
    made = gaussian.process(schedules.linear(20, 0.01, 0.3))
    plain = parameterizations.eps(made)
    found, expected = (
        samplers.sample(keys(2), sampler, jnp.ones((2, 3)), samplers.times(20, 5))
        for sampler in (
            samplers.ddim(made, learned(made), two_outputs, eta=eta),
            samplers.ddim(made, plain, lambda x_t, t, condition: 0.1 * x_t, eta=eta),
        )
    )
    np.testing.assert_array_equal(found, expected)
