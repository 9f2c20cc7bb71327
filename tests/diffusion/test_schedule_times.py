"""Schedules between times: exact at integers, accurate in float32, defined in between, NaN outside; as arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import SCHEDULES, tables

from ddpm_jax.diffusion import schedules

each_schedule = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)

T = 100_000
LONG = {
    "linear": lambda dtype: schedules.linear_scaled(T, dtype),
    "quadratic": lambda dtype: schedules.quadratic(T, 0.1 / T, 20 / T, dtype),
    "constant": lambda dtype: schedules.constant(T, 10 / T, dtype),
    "warmup": lambda dtype: schedules.warmup(T, 0.1, 0.1 / T, 20 / T, dtype),
    "sigmoid": lambda dtype: schedules.sigmoid(T, 0.1 / T, 20 / T, dtype),
    "steady": lambda dtype: schedules.steady(T, dtype),
    "cosine": lambda dtype: schedules.cosine(T, dtype=dtype),
    "betas": lambda dtype: schedules.from_betas(1e-4 / np.arange(1, T + 1), dtype),
}
"""Schedules of 100,000 steps, as functions of the dtype."""
each_long_schedule = pytest.mark.parametrize("make", LONG.values(), ids=LONG)

at = jax.jit(schedules.Schedule.at, static_argnums=2)
between = jax.jit(schedules.Schedule.between, static_argnums=3)


@each_schedule
def test_a_step_from_the_data_is_the_marginal(make):
    schedule, t = make(), np.arange(1, make().num_steps + 1)
    for step, marginal in zip(between(schedule, 0, t, 1), at(schedule, t, 1), strict=True):
        np.testing.assert_array_equal(step, marginal)


def three_times(num_steps, real):
    """s < t < u, 2000 triples of them but for equal ones; real times are in [1, T]."""
    generator = np.random.default_rng(0)
    if real:
        return np.sort(generator.uniform(1, num_steps, (2000, 3)), axis=1).T
    draws = generator.integers(0, num_steps + 1, (2000, 3))
    return np.sort([row for row in draws if len(set(row)) == 3], axis=1).T


@each_schedule
@pytest.mark.parametrize("real", [False, True], ids=["integer", "real"])
def test_steps_compose(make, real, x64):
    """Chapman-Kolmogorov: s to t to u forgets what s to u forgets."""
    schedule = make(dtype=np.float64)
    s, t, u = three_times(schedule.num_steps - 1 if real else schedule.num_steps, real)
    (left_st, lost_st), (left_tu, lost_tu) = between(schedule, s, t, 1), between(schedule, t, u, 1)
    left_su, lost_su = between(schedule, s, u, 1)
    np.testing.assert_allclose(left_st * left_tu, left_su, rtol=1e-13)
    np.testing.assert_allclose(left_tu * lost_st + lost_tu, lost_su, rtol=1e-11)


@each_schedule
@pytest.mark.parametrize("stride", [1, 20, 1000])
def test_steps_are_accurate_in_float32(make, stride, request):
    t = np.arange(1, make().num_steps + 1)
    s = np.maximum(t - stride, 0)
    left, lost = between(make(), s, t, 1)
    request.getfixturevalue("x64")
    exact_left, exact_lost = between(make(dtype=np.float64), s, t, 1)
    np.testing.assert_allclose(left, exact_left, rtol=2e-7)
    np.testing.assert_allclose(lost, exact_lost, rtol=5e-7)


@each_long_schedule
@pytest.mark.parametrize("stride", [1, 1000])
def test_betas_are_accurate_in_float32_over_100_000_steps(make, stride, request):
    """The difference of two rounded values of alpha_bar would be off by 1.5e-3."""
    t = np.arange(1, T + 1)
    lost = between(make(np.float32), np.maximum(t - stride, 0), t, 1)[1]
    request.getfixturevalue("x64")
    exact = between(make(np.float64), np.maximum(t - stride, 0), t, 1)[1]
    np.testing.assert_allclose(lost, exact, rtol=1e-6)


@each_long_schedule
def test_betas_of_real_times_are_accurate_in_float32(make, request):
    """Steps of at least a fifth of a step, as float32 times near 100,000 are 0.008 apart."""
    s = np.float32(np.random.default_rng(0).uniform(1, T - 3, 20_000))
    t = s + np.float32(np.random.default_rng(1).uniform(0.2, 2, s.shape))
    lost = between(make(np.float32), s, t, 1)[1]
    request.getfixturevalue("x64")
    exact = between(make(np.float64), np.float64(s), np.float64(t), 1)[1]
    np.testing.assert_allclose(lost, exact, rtol=2e-6)


@each_schedule
def test_real_times_are_exact_at_integers(make):
    """Bit for bit, in `at` and in `between`, from the data to T."""
    schedule = make()
    t = np.arange(schedule.num_steps + 1)
    s = np.maximum(t - 7, 0)
    np.testing.assert_array_equal(at(schedule, t.astype(np.float32), 1), tables(schedule)[:2])
    np.testing.assert_array_equal(at(schedule, t, 1), tables(schedule)[:2])
    # not compiled: in two programs XLA may round the same exponential differently
    real = schedule.between(s.astype(np.float32), t.astype(np.float32), 1)
    np.testing.assert_array_equal(real, schedule.between(s, t, 1))


def log_snr(schedule):
    """At t = 1..T."""
    alpha_bar, one_minus = np.asarray(schedule.alpha_bar)[1:], np.asarray(schedule.one_minus_alpha_bar)[1:]
    with np.errstate(divide="ignore"):
        return np.log(alpha_bar) - np.log(one_minus)


@each_schedule
def test_the_log_signal_to_noise_ratio_is_linear_between_integers(make, x64):
    schedule = make(dtype=np.float64)
    last = schedule.num_steps if schedule.alpha_bar[-1] > 0 else schedule.num_steps - 1
    t = np.random.default_rng(0).uniform(1, last, 5000)
    expected = np.interp(t, np.arange(1, last + 1), log_snr(schedule)[:last])
    alpha_bar, one_minus = at(schedule, t, 1)
    np.testing.assert_allclose(jnp.log(alpha_bar) - jnp.log(one_minus), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(alpha_bar + one_minus, 1, rtol=1e-14)


@each_schedule
def test_real_times_are_accurate_in_float32(make, request):
    t = np.random.default_rng(0).uniform(1, make().num_steps - 1, 5000).astype(np.float32)
    found = at(make(), t, 1)
    request.getfixturevalue("x64")
    np.testing.assert_allclose(found, at(make(dtype=np.float64), t.astype(np.float64), 1), rtol=5e-7)


def test_signal_falls_with_time_also_between_integers():
    t = np.linspace(1, 1000, 7993).astype(np.float32)
    assert np.all(np.diff(at(schedules.cosine(1000), t, 1)[0]) < 0)


OUTSIDE = [-np.inf, -1.0, -0.5, 1e-6, 0.5, 0.999999, 10.000001, 10.5, 11.0, 1e9, np.inf, np.nan]


@pytest.mark.parametrize("make", [schedules.linear, schedules.steady])
def test_no_time_below_1_but_0_and_none_above_T(make):
    schedule = make(10)
    for t in (jnp.array(OUTSIDE), jnp.array([-11, -2, -1, 11, 12, 10**6])):
        assert np.isnan(at(schedule, t, 1)).all()
        assert np.isnan(between(schedule, 0, t, 1)).all() and np.isnan(between(schedule, t, 10, 3)).all()
    assert np.isfinite(at(schedule, jnp.array([0.0, 1.0, 1.000001, 9.999999, 10.0]), 1)).all()


def test_one_before_the_data_is_not_the_last_time():
    """Python counts -1 from the end."""
    assert np.isnan(schedules.linear(10).at(-1, 0)).all() and np.isnan(schedules.linear(10).between(-1, 0, 0)).all()


def test_where_nothing_is_left_at_T_nothing_is_left_just_before_it():
    """The log signal-to-noise ratio falls to minus infinity; and a step among such times changes nothing."""
    schedule, t = schedules.steady(10), jnp.array([9.0, 9.001, 9.5, 10.0])
    np.testing.assert_array_equal(at(schedule, t, 1), [[np.float32(0.1), 0, 0, 0], [np.float32(0.9), 1, 1, 1]])
    np.testing.assert_array_equal(between(schedule, 9.0, t[1:], 1), [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(between(schedule, t[1:3], 10.0, 1), [[1, 1], [0, 0]])


def test_a_schedule_of_one_step_has_two_times():
    for schedule in (schedules.steady(1), schedules.from_betas([0.3])):
        for t in (jnp.array([0, 1]), jnp.array([0.0, 1.0])):
            np.testing.assert_array_equal(at(schedule, t, 1)[0], tables(schedule)[0])
        assert np.isnan(at(schedule, jnp.array([0.5, 1.5]), 1)).all()


@pytest.mark.parametrize("t", [np.array([0, 3, 10]), np.array([0.0, 3.0, 10.0])], ids=["integer", "real"])
def test_a_vector_of_times_broadcasts_against_images(t):
    schedule = schedules.linear(10)
    for picked, table in zip(schedule.at(t, 4), tables(schedule)[:2], strict=True):
        for image, index in zip(picked * jnp.ones((3, 2, 2, 1)), t.astype(int), strict=True):
            np.testing.assert_array_equal(image, np.full((2, 2, 1), table[index]))


def test_times_above_the_last_are_nan():
    schedule = schedules.linear(10)
    assert np.isfinite(schedule.at(10, 0)).all() and np.isnan(schedule.at(11, 0)).all()
    assert np.isnan(between(schedule, 0, np.array([11, 12]), 3)).all()


@pytest.mark.parametrize("make", [schedules.cosine, schedules.steady])
def test_a_schedule_is_an_argument_of_a_jitted_function(make):
    """With the result of the schedule that is closed over, and with its name and numbers."""
    schedule, t = make(50), jnp.array([0.0, 1.0, 7.25, 50.0])
    closed = jax.jit(lambda t: schedule.at(t, 1) + schedule.between(0, t, 1))(t)
    argument = jax.jit(lambda schedule, t: schedule.at(t, 1) + schedule.between(0, t, 1))(schedule, t)
    np.testing.assert_array_equal(closed, argument)
    again = jax.jit(lambda schedule: schedule)(schedule)
    assert again.name == schedule.name and set(again.numbers) == set(schedule.numbers)
    for name, number in schedule.numbers.items():
        np.testing.assert_allclose(again.numbers[name], number, rtol=1e-7)


def test_other_numbers_are_no_reason_to_compile_again():
    traced = []

    @jax.jit
    def read(schedule, t):
        traced.append(schedule.name)
        return schedule.at(t, 0)[0]

    made = [schedules.linear(50), schedules.linear(50, 1e-3, 0.1), schedules.linear_scaled(50)]
    for schedule in made:
        np.testing.assert_array_equal(read(schedule, 7), schedule.alpha_bar[7])
    assert traced == ["linear"]


def test_many_schedules_are_one_batch():
    """`vmap` over a sweep of beta_T, whose numbers come along."""
    made = [schedules.linear(20, 1e-3, beta_T) for beta_T in (0.1, 0.2, 0.3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *made)
    found = jax.vmap(lambda schedule: schedule.between(3, 4.5, 0)[1])(batch)
    np.testing.assert_allclose(found, [schedule.between(3, 4.5, 0)[1] for schedule in made], rtol=1e-6)
    np.testing.assert_allclose(batch.numbers["beta_T"], [0.1, 0.2, 0.3], rtol=1e-7)
