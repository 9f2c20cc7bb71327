"""Solvers of higher order: their coefficients, their order of convergence where the flow is known, and their limits."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, best_eps_of_two, keys

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules

SOLVERS = [name for name in samplers.SAMPLERS if name not in ("ancestral", "ddim")]
DETERMINISTIC = [name for name in SOLVERS if name != "dpm++2m-sde"]
ORDERS = {"ddim": 1, "dpm++2m": 2, "dpm++2s": 2, "heun": 2, "dpm++3m": 3}
EVEN = {"plms": 2, "pndm": 2}
"""The orders for times that are even in the log signal-to-noise ratio, and for times that are even in t."""


@cache
def linear(dtype=np.float64):
    return gaussian.process(schedules.linear(1000, dtype=dtype))


def made(name, network=None, process=None, **numbers):
    process = process or linear()
    network = network or best_eps(process.schedule, 0.25)
    return samplers.SAMPLERS[name](process, parameterizations.eps(process), network, **numbers)


def end(sampler, times, x=1.0):
    """The state at the last of the times, started from x."""
    return float(jax.jit(lambda times: samplers.sample(keys(1), sampler, jnp.full((1, 1), x), times))(times)[0, 0])


def walk(sampler, most):
    """`end` of this sampler for up to `most` steps, as a function of the times and of x: a single program."""

    @jax.jit
    def last(times, count, x):
        x = jnp.full((1, 1), x)
        return samplers.stretch(keys(1), sampler, x, sampler.init(x), times, 0, count)[0][0, 0]

    def end(times, x=1.0):
        return float(last(np.pad(times, (0, most + 1 - len(times)), mode="edge"), len(times) - 1, x))

    return end


@cache
def short_walk(name, schedule=schedules.linear):
    return walk(made(name, process=gaussian.process(schedule(1000))), 50)


def grid(count):
    """Real times from 900 to 30, even in the log signal-to-noise ratio."""
    alpha_bar, one_minus = linear().schedule.at(jnp.array([900, 30]), 1)
    times = np.array(linear().schedule.time_of(np.linspace(*np.log(alpha_bar / one_minus), count + 1)))
    times[[0, -1]] = 900, 30
    return times


def exact(start, stop, variance=0.25):
    """The deviation at `stop` of data N(0, variance) whose deviation at `start` is one, along the flow."""
    alpha_bar, one_minus = linear().schedule.at(jnp.array([start, stop]), 1)
    deviation = np.sqrt(alpha_bar * variance + one_minus)
    return deviation[1] / deviation[0]


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_the_order_of_convergence_on_gaussian_data(name, order, x64):
    end = walk(made(name), 160)
    errors = [abs(end(grid(count)) - exact(900, 30)) for count in (80, 160)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_forty_steps_are_nearer_to_the_flow_of_a_mixture_than_ddim_with_eighty(x64):
    """The flow of 0.5 N(-1, 0.01) + 0.5 N(1, 0.01), which DDIM follows in 4000 real steps."""
    network = best_eps_of_two(linear().schedule)
    truth = end(made("ddim", network), np.linspace(900, 30, 4000), 0.3)
    first = end(made("ddim", network), grid(80), 0.3)
    for name in ("dpm++2m", "dpm++2s", "dpm++3m", "heun"):
        assert abs(end(made(name, network), grid(40), 0.3) - truth) < 0.25 * abs(first - truth), name


@pytest.mark.parametrize(("name", "order"), EVEN.items())
def test_the_order_of_convergence_in_even_steps(name, order, x64):
    end = walk(made(name), 160)
    errors = [abs(end(np.linspace(900, 30, count + 1)) - exact(900, 30)) for count in (80, 160)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_forty_even_steps_of_pndm_are_nearer_to_the_flow_than_a_thousand_of_ddim(x64):
    plms, pndm, ddim = (
        abs(end(made(name), np.linspace(900, 30, count)) - exact(900, 30))
        for name, count in (("plms", 40), ("pndm", 40), ("ddim", 1000))
    )
    assert max(plms, pndm) < 0.3 * ddim


def test_two_steps_of_2m_have_the_published_coefficients(x64):
    """For 1000, 750, 500 and 750, 500, 250, computed in float64 from the formula of the released code."""
    expected = {
        (1000, 750, 500): (0.961514625871, 0.306818063828, -0.082140155264),
        (750, 500, 250): (0.718683072160, 0.729130087099, -0.206664094357),
    }
    process = linear()
    for times, coefficients in expected.items():

        def last(x, current, previous, times=times):
            """The state at the end if it is x at the second time, where the estimates of x_0 are these two."""
            network = lambda x_t, t, condition: jnp.full_like(x_t, jnp.where(t == times[0], previous, current))  # noqa: E731
            sampler = samplers.multistep(process, parameterizations.x0(process), network)
            begun = sampler.init(jnp.zeros((1, 1)))
            _, memory = sampler.step(keys(1), jnp.zeros((1, 1)), begun, jnp.array(times[0]), jnp.array(times[1]))
            return sampler.step(keys(1), jnp.full((1, 1), x), memory, jnp.array(times[1]), jnp.array(times[2]))[0][0, 0]

        found = [last(1.0, 0.0, 0.0), last(0.0, 1.0, 0.0), last(0.0, 0.0, 1.0)]
        np.testing.assert_allclose(found, coefficients, atol=1e-11)


@pytest.mark.parametrize("times", [samplers.times(1000, 7), np.array([1000.0, 612.5, 99.25, 0.0])])
def test_the_first_order_of_dpm_solver_is_ddim(times, x64):
    process = linear()
    first = samplers.multistep(process, parameterizations.eps(process), best_eps(process.schedule, 0.25), order=1)
    np.testing.assert_allclose(end(first, times), end(made("ddim"), times), rtol=1e-12)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_few_steps_reach_the_data(name, count):
    """Finite also where a step to the data, of infinite length in log signal-to-noise, is the first of all."""
    found = short_walk(name)(samplers.times(1000, count))
    assert np.isfinite(found) and (abs(found) < 1 or name in ("heun", "pndm"))  # these are unstable in giant steps


@pytest.mark.parametrize("name", SOLVERS)
def test_every_spacing_gives_numbers_from_one_step_on(name):
    """Also where a step is so short that its middle lies below 1, the first time of the network."""
    for spacing in samplers.SPACINGS.values():
        for count in (1, 2, 3, 5):
            assert np.isfinite(short_walk(name)(spacing(linear(np.float32).schedule, count)))
    for count in (20, 50):
        if name != "pndm":  # see its docstring
            assert abs(short_walk(name, schedules.cosine)(samplers.times(1000, count))) < 3


@pytest.mark.parametrize("name", SOLVERS)
def test_a_walk_that_rises_starts_its_memory_anew(name):
    process = linear(np.float32)
    walk, times = samplers.rising(process, made(name, process=process)), np.array([1000, 800, 600, 800, 600, 400, 0])
    drawn = samplers.sample(keys(256), walk, jnp.ones((256, 1)), times)
    assert np.isfinite(drawn).all() and (np.abs(drawn).max() < 5 or name == "pndm")


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_walk_has_a_gradient(name):
    process = linear(np.float32)
    sampler, times = made(name, process=process), samplers.times(1000, 6)
    slope = jax.grad(lambda x: samplers.sample(keys(1), sampler, x, times).sum())(jnp.ones((1, 1)))
    assert np.isfinite(slope).all() and slope[0, 0] > 0


@pytest.mark.parametrize("name", SOLVERS)
def test_a_schedule_without_signal_at_T_is_refused(name):
    process = gaussian.process(schedules.steady(20))
    with pytest.raises(ValueError, match="divides by alpha_bar_T, which is 0"):
        samplers.SAMPLERS[name](process, parameterizations.v(process), best_eps(process.schedule, 0.25))
    for spacing in ("karras", "logsnr"):
        with pytest.raises(ValueError, match="need alpha_bar_T above 0"):
            samplers.SPACINGS[spacing](process.schedule, 5)


@pytest.mark.parametrize("name", ["dpm++2m", "dpm++2s", "dpm++3m", "heun"])
def test_the_step_to_the_data_is_the_estimate_of_x_0(name, x64):
    process = linear()
    x_t, t = 0.7, 300
    alpha_bar, one_minus = process.schedule.at(t, 0)
    estimate = 0.25 * np.sqrt(alpha_bar) * x_t / (0.25 * alpha_bar + one_minus)
    np.testing.assert_allclose(end(made(name), np.array([t, 0]), x_t), estimate, rtol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_noise_of_the_sde_leaves_the_moments_right(eta):
    """Of data N(0, 1/4), at 40 steps: the deterministic solver errs by the same amount."""
    process = linear(np.float32)
    times = samplers.logsnr(process.schedule, 40)
    draw = jax.jit(lambda keys, x: samplers.sample(keys, made("dpm++2m-sde", process=process, eta=eta), x, times))
    x_0 = np.asarray(draw(keys(20_000), jax.random.normal(jax.random.key(1), (20_000, 1))))
    assert x_0.mean() == pytest.approx(0, abs=4 * 0.5 / np.sqrt(len(x_0)))
    assert x_0.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * len(x_0)) + 0.01)


def test_churn_leaves_the_moments_right():
    process = linear(np.float32)
    times = samplers.karras(process.schedule, 40)
    draw = jax.jit(lambda keys, x, churn: samplers.sample(keys, made("heun", process=process, churn=churn), x, times))
    x_T = jax.random.normal(jax.random.key(1), (20_000, 1))
    still, churned = (np.asarray(draw(keys(20_000), x_T, jnp.float32(churn))) for churn in (0.0, 0.2))
    assert np.abs(still - churned).max() > 0.5
    assert churned.std() == pytest.approx(0.5, rel=4 / np.sqrt(2 * len(x_T)) + 0.01)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_walk_in_two_stretches_is_the_walk(name):
    """Its memory passes what the next step needs."""
    process = linear(np.float32)
    sampler, times = made(name, process=process), samplers.times(1000, 6)
    x_T, drawn = jnp.ones((2, 3)), keys(2)
    whole = jax.jit(lambda x: samplers.sample(drawn, sampler, x, times))(x_T)
    run = jax.jit(partial(samplers.stretch, drawn, sampler), static_argnums=())
    x, memory = run(x_T, sampler.init(x_T), jnp.asarray(times), 0, 3)
    x, _ = run(x, memory, jnp.asarray(times), 3, 6)
    np.testing.assert_allclose(x, whole, atol=1e-6)


def test_another_order_is_refused():
    process = linear(np.float32)
    with pytest.raises(ValueError, match="order must be 1, 2 or 3, got 4"):
        samplers.multistep(process, parameterizations.eps(process), best_eps(process.schedule, 1.0), order=4)


def test_encoding_and_decoding_return_to_the_image_at_first_order(x64):
    """The round trip of DDIM: the error halves with twice the steps (Song et al. 2021, Table 2)."""
    process = linear()
    network = best_eps(process.schedule, 0.25)
    up = walk(samplers.encoder(process, parameterizations.eps(process), network), 200)
    down = walk(made("ddim"), 200)

    def error(count):
        times = samplers.times(1000, count)
        return abs(down(times, up(times[::-1], 0.6)) - 0.6)

    errors = [error(count) for count in (50, 100, 200)]
    assert errors[0] < 0.1
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.15)


def test_the_time_of_a_ratio_is_the_inverse_of_the_schedule(x64):
    schedule = linear().schedule
    t = jnp.array([1.0, 1.25, 17.0, 499.5, 1000.0])
    alpha_bar, one_minus = schedule.at(t, 1)
    np.testing.assert_allclose(schedule.time_of(jnp.log(alpha_bar / one_minus)), t, rtol=1e-9)
    assert schedule.time_of(50.0) == 1 and schedule.time_of(-50.0) == 1000
