"""Samplers on data whose best predictor is known: what they draw has known moments, step for step."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, forward_variance

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def flat_in_the_middle(fraction):
    return 0.5 + 4 * (fraction - 0.5) ** 3


@pytest.mark.parametrize("spacing", [samplers.even, samplers.quadratic, np.sqrt, flat_in_the_middle])
def test_times_fall_strictly_from_the_last_to_the_data(spacing):
    """For every count of steps, also where the spacing alone would give a time twice."""
    for count in range(1, 1001):
        times = samplers.times(1000, count, spacing)
        assert len(times) == count + 1 and times[0] == 1000 and times[-1] == 0
        assert np.all(np.diff(times) < 0)


def test_linear_times_are_even():
    for count in (3, 7, 50, 999):
        assert np.ptp(np.diff(samplers.times(1000, count))) <= 1


def test_quadratic_times_are_dense_near_the_data():
    """Half of the steps for the last quarter of the time."""
    times = samplers.times(1000, 20, samplers.quadratic)
    assert times[10] == 250 and np.all(np.diff(times, 2) >= -1)


@pytest.mark.parametrize("count", [0, -1, 11])
def test_walks_of_no_steps_or_too_many_are_refused(count):
    with pytest.raises(ValueError, match=f"10 steps.* {count}"):
        samplers.times(10, count)


# --- moments of what is drawn ------------------------------------------------------------------------------------

DATA_VARIANCES = [1.0, 0.25]


@partial(jax.jit, static_argnums=0)
def moments(kernel, times):
    """Mean and variance of the last state, without and with its noise, of a walk from N(0, 1).

    The kernel's mean is affine in x_t, so its value at 0 and at 1 carries the moments along, exactly.
    """

    def step(state, pair):
        mean, _, variance = state
        at_0, at_1 = (kernel(jnp.full(mean.shape, x), *pair) for x in (0.0, 1.0))
        slope = at_1.mode() - at_0.mode()
        noiseless = slope**2 * variance
        return (at_0.mode() + slope * mean, noiseless, noiseless + at_0.variance), None

    zero, one = jnp.zeros(2), jnp.ones(2)
    return jax.lax.scan(step, (zero, one, one), (times[:-1], times[1:]))[0]


def ancestral_moments(variance, times):
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    network = best_eps(process.schedule, jnp.array(DATA_VARIANCES))
    kernel = samplers.reverse(parameterizations.eps(process, variance), network)
    return [np.asarray(moment) for moment in moments(kernel, jnp.asarray(times))]


# variance of the kernels; for data N(0, 1) and N(0, 1/4), best eps, schedule of Ho et al. 2020: variance of the sample
# without the noise of the last step and with it; by a float64 recursion
ANCESTRAL = [
    (forward_variance, [0.999900000, 0.250752075], [1.000000000, 0.250852075]),
    (fixed_large, [0.999900000, 0.250752075], [0.999954532, 0.250806607]),
    (fixed_small, [0.991067376, 0.24612521], [0.991121908, 0.24617974]),
]


@pytest.mark.parametrize(("variance", "noiseless", "noisy"), ANCESTRAL)
def test_variance_of_ancestral_samples(variance, noiseless, noisy, x64):
    mean, found_noiseless, found_noisy = ancestral_moments(variance, samplers.times(1000, 1000))
    np.testing.assert_allclose(found_noiseless, noiseless, atol=6e-9)
    np.testing.assert_allclose(found_noisy, noisy, atol=6e-9)
    np.testing.assert_allclose(mean, np.zeros(2), atol=1e-12)


def test_drawn_samples_have_the_moments_of_their_kernels():
    """Ancestral sampling in float32, T = 60: mean and variance within five standard errors, the last step noiseless."""
    process = gaussian.process(schedules.linear(60, 2e-3, 0.3))
    network = best_eps(process.schedule, jnp.array([DATA_VARIANCES]), mean=0.5)
    times, count = samplers.times(60, 60), 200_000
    x_T = jax.random.normal(jax.random.key(1), (count, 2))
    sampler = samplers.ddpm(process, parameterizations.eps(process), network)
    x_0 = np.asarray(jax.jit(samplers.sample, static_argnums=1)(keys(count), sampler, x_T, times), np.float64)
    kernel = samplers.reverse(
        parameterizations.eps(process), best_eps(process.schedule, jnp.array(DATA_VARIANCES), mean=0.5)
    )
    mean, variance, _ = (np.asarray(moment) for moment in moments(kernel, jnp.asarray(times)))
    assert np.all(np.abs(x_0.mean(0) - mean) < 5 * np.sqrt(variance / count))
    assert np.all(np.abs(x_0.var(0) / variance - 1) < 5 * np.sqrt(2 / count))


def released_times(count):
    """The times of the released code of Song et al. 2021, indices 0, 1000 / S, ... counted from one; 999 is skipped."""
    return np.append(np.arange(0, 1000, 1000 // count)[::-1] + 1, 0).astype(np.int32)


# steps; for data N(0, 1) and N(0, 1/4): standard deviation at eta = 0, variance at eta = 1; by a float64 recursion
DDIM = [
    (10, [0.83169588, 0.37412849], [0.54820734, 0.11106430]),
    (20, [0.91253171, 0.43373442], [0.71072592, 0.15324442]),
    (50, [0.96407927, 0.47243911], [0.85743391, 0.19724511]),
    (100, [0.98185083, 0.48598057], [0.92159916, 0.21926356]),
    (1000, [0.99812429, 0.49849528], [0.99106738, 0.24612521]),
]


@pytest.mark.parametrize(("count", "deviations", "_"), DDIM)
def test_ddim_without_noise_is_a_linear_map(count, deviations, _, x64):
    """x_0 = a x_T on Gaussian data, so a is the deviation of what is drawn."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    network = best_eps(process.schedule, jnp.array([DATA_VARIANCES]))
    sampler = samplers.ddim(process, parameterizations.eps(process), network)
    x_T = jnp.array([[1.0, 1.0], [-3.0, 2.0]])
    x_0 = samplers.sample(keys(2), sampler, x_T, released_times(count))
    np.testing.assert_allclose(x_0, x_T * np.array([deviations]), rtol=3e-8)


@pytest.mark.parametrize(("count", "_", "variances"), DDIM)
def test_variance_of_strided_ancestral_samples(count, _, variances, x64):
    """The posterior's variance at every stride: DDIM with eta = 1."""
    _, noiseless, _ = ancestral_moments(fixed_small, released_times(count))
    np.testing.assert_allclose(noiseless, variances, atol=6e-9)


def test_more_steps_come_nearer_to_the_data(x64):
    """The error of the deterministic walk falls with the number of its steps, at first order (Euler's)."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64))
    network = best_eps(process.schedule, 0.25)
    sampler = samplers.ddim(process, parameterizations.eps(process), network)
    deviation = [samplers.sample(keys(1), sampler, jnp.ones((1, 1)), samplers.times(1000, n))[0, 0] for n in (25, 100)]
    errors = 0.5 - np.array(deviation)
    assert 3 < errors[0] / errors[1] < 5


# --- what a sample depends on ------------------------------------------------------------------------------------

T, TIMES = 30, samplers.times(30, 6)


@cache
def problem():
    process = gaussian.process(schedules.linear(T, 1e-3, 0.3))
    return process, parameterizations.eps(process, fixed_small), best_eps(process.schedule, 0.4, mean=0.2)


def start(count=8):
    return jnp.asarray(np.random.default_rng(0).normal(size=(8, 2, 2, 1)).astype(np.float32))[:count]


@jax.jit
def ddim(keys, x_T, times, eta):
    return samplers.sample(keys, samplers.ddim(*problem(), eta=eta), x_T, times)


@jax.jit
def ancestral(keys, x_T, times):
    _, parameterization, network = problem()
    return samplers.sample(keys, samplers.ancestral(samplers.reverse(parameterization, network)), x_T, times)


def test_ddim_with_all_its_noise_is_ancestral_sampling():
    """Song et al. 2021, Section 4.1: sample for sample, as both spend the same keys alike."""
    found = ddim(keys(8), start(), TIMES, 1.0)
    np.testing.assert_allclose(found, ancestral(keys(8), start(), TIMES), rtol=1e-5, atol=1e-6)
    assert np.all(np.abs(found - ddim(keys(8), start(), TIMES, 0.9)) > 1e-4)


def test_eta_scales_the_noise_of_a_step():
    """Song et al. 2021, Eq. 16: at eta = 1/2 half the deviation of eta = 1, around the mean of the other bridge."""
    process, parameterization, network = problem()
    x_0 = parameterization.x_0(network(start(), T, None), start(), T)
    full, half = (process.posterior(start(), x_0, T, 10, eta) for eta in (1.0, 0.5))
    walked_full, walked_half = (ddim(keys(8), start(), np.array([T, 10], np.int32), eta) for eta in (1.0, 0.5))
    np.testing.assert_allclose(walked_half - half.mean, (walked_full - full.mean) / 2, rtol=1e-4, atol=1e-6)


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


def test_keys_are_spent_only_where_there_is_noise():
    """None without eta, and none in the step to the data, which takes the mode."""
    for times, eta in ((TIMES, 0.0), (np.array([5, 0], np.int32), 1.0)):
        one, other = (ddim(keys(8, seed), start(), times, eta) for seed in (0, 1))
        np.testing.assert_array_equal(one, other)
    one, other = (ddim(keys(8, seed), start(), TIMES, 0.1) for seed in (0, 1))
    assert np.all(np.asarray(one != other))


def test_eta_and_times_are_no_reason_to_compile_again():
    traced = []

    @jax.jit
    def sample(keys, x_T, times, eta):
        traced.append(eta)
        return samplers.sample(keys, samplers.ddim(*problem(), eta=eta), x_T, times)

    spaced = [samplers.times(T, 6, spacing) for spacing in (samplers.even, samplers.quadratic)]
    results = [sample(keys(8), start(), times, eta) for times in spaced for eta in (0.0, 0.5)]
    assert len(traced) == 1
    assert len({np.asarray(result).tobytes() for result in results}) == 4


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
    """Only the times, and the frames that they fill, are as long as the walk."""
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


def test_a_frame_for_each_state_is_the_most():
    """And each is another one."""
    _, frames = path(7)
    assert len({np.asarray(frame).tobytes() for frame in frames}) == 7


@pytest.mark.parametrize("frames", [1, 8])
def test_frames_beyond_the_states_are_refused(frames):
    """Six steps have seven states: an eighth frame would stay black, and x_T and x_0 take two."""
    with pytest.raises(ValueError, match=str(frames)):
        path(frames)
