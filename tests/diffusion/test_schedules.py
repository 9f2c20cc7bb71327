"""Schedules: what is left of the data after t steps, and that float32 loses none of it."""

import re
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import SCHEDULES, tables

from ddpm_jax.diffusion import schedules

# t, beta_t, alpha_bar_t of Ho et al. 2020's schedule (1e-4 to 0.02, T = 1000), by a float64 recursion over numpy arrays
LINEAR = [
    (1, 1e-4, 0.9999),
    (2, 1.1991991992e-4, 0.999780092072),
    (10, 2.79279279279e-4, 0.998105204786),
    (100, 2.07207207207e-3, 0.897018145675),
    (250, 5.06006006006e-3, 0.524085373825),
    (500, 0.01004004004, 0.0785872428818),
    (750, 0.01502002002, 3.35055043894e-3),
    (1000, 0.02, 4.035829765375676e-05),
]

# alpha_bar_t of the other schedules, by the same recursion over their published betas
ALPHA_BARS = [
    (partial(schedules.cosine, 1000), 1, 0.999958715775),
    (partial(schedules.cosine, 1000), 100, 0.972092737114),
    (partial(schedules.cosine, 1000), 250, 0.847012161327),
    (partial(schedules.cosine, 1000), 500, 0.493843590441),
    (partial(schedules.cosine, 1000), 750, 0.144272102386),
    (partial(schedules.cosine, 1000), 900, 0.0240917241401),
    (partial(schedules.cosine, 1000), 999, 2.42876690703e-6),
    (partial(schedules.cosine, 1000), 1000, 2.42876690703e-9),
    (partial(schedules.cosine, 4000), 2000, 0.493843590441),
    (partial(schedules.cosine, 4000), 4000, 1.51798046885e-10),
    (partial(schedules.linear_scaled, 4000), 4000, 4.246652275802249e-05),
    (partial(schedules.quadratic, 1000), 500, 0.3331877673563),
    (partial(schedules.quadratic, 1000), 1000, 7.334124595808e-4),
    (partial(schedules.constant, 1000), 1000, 1.6829673572e-9),
    (partial(schedules.warmup, 1000, 0.1), 1000, 4.613686681671e-9),
    (partial(schedules.warmup, 1000, 0.5), 1000, 2.606135133e-7),
]

each_schedule = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


between = jax.jit(schedules.Schedule.between, static_argnums=3)


def betas_of(schedule):
    t = np.arange(1, schedule.num_steps + 1)
    return np.asarray(between(schedule, t - 1, t, 1)[1])


@pytest.mark.parametrize(("t", "beta", "alpha_bar"), LINEAR)
def test_linear_is_the_schedule_of_2020(t, beta, alpha_bar, x64):
    schedule = schedules.linear(1000, dtype=np.float64)
    np.testing.assert_allclose(schedule.at(t, 0)[0], alpha_bar, rtol=5e-12)
    np.testing.assert_allclose(between(schedule, t - 1, t, 0)[1], beta, rtol=5e-12)


def test_half_the_variance_of_the_data_is_gone_at_260():
    schedule = schedules.linear(1000)
    assert np.flatnonzero(schedule.alpha_bar < 0.5)[0] == 260


@pytest.mark.parametrize(("make", "t", "alpha_bar"), ALPHA_BARS)
def test_alpha_bar_of_the_other_schedules(make, t, alpha_bar):
    np.testing.assert_allclose(make(dtype=np.float64).alpha_bar[t], alpha_bar, rtol=1e-9)


def test_cosine_clips_its_last_beta_only(x64):
    betas = betas_of(schedules.cosine(1000, dtype=np.float64))
    assert np.flatnonzero(betas > 0.99).tolist() == [999]
    np.testing.assert_allclose(betas[[0, 998, 999]], [4.1284224822e-5, 0.749999392901, 0.999], rtol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 3, 40, 1000])
def test_steady_forgets_an_equal_share_each_step(num_steps):
    """alpha_bar_t = 1 - t/T, correctly rounded, which a running product is not."""
    schedule = schedules.steady(num_steps, dtype=np.float64)
    exact = [float(1 - Fraction(t, num_steps)) for t in range(num_steps + 1)]
    assert schedule.alpha_bar.tolist() == exact


def test_steady_has_the_betas_of_2015():
    """beta_t = 1 / (T - t + 1), Sohl-Dickstein et al. 2015, Section 2.4.1."""
    product = schedules.from_betas(1 / np.arange(50, 0, -1), dtype=np.float64)
    np.testing.assert_allclose(product.alpha_bar, schedules.steady(50, np.float64).alpha_bar, rtol=1e-12, atol=1e-15)


@each_schedule
def test_what_is_left_and_what_is_lost_sum_to_one(make):
    schedule = make(dtype=np.float64)
    total = schedule.alpha_bar + schedule.one_minus_alpha_bar
    np.testing.assert_allclose(total, 1, rtol=0, atol=2 * np.finfo(np.float64).eps)


@each_schedule
def test_alpha_bar_falls_from_one(make):
    schedule = make()
    assert schedule.alpha_bar[0] == 1 and schedule.one_minus_alpha_bar[0] == 0
    assert np.all(np.diff(schedule.alpha_bar) < 0)


@each_schedule
def test_float32_tables_are_the_rounded_float64_ones(make):
    """One minus a float32 alpha_bar_1 would be off by 1.7e-4."""
    rounded, exact = make(), make(dtype=np.float64)
    np.testing.assert_allclose(rounded.alpha_bar, exact.alpha_bar, rtol=1e-7)
    np.testing.assert_allclose(rounded.one_minus_alpha_bar, exact.one_minus_alpha_bar, rtol=1e-7)


def test_the_lost_share_follows_its_own_recursion():
    """1 - alpha_bar_t = (1 - beta_t)(1 - alpha_bar_{t-1}) + beta_t: sums of positive numbers, so nothing cancels."""
    lost = [0.0]
    for beta in np.linspace(1e-4, 0.02, 1000):
        lost.append((1 - beta) * lost[-1] + beta)
    np.testing.assert_allclose(schedules.linear(1000, dtype=np.float64).one_minus_alpha_bar, lost, rtol=1e-13)


@pytest.mark.parametrize("bad", [-0.25, 1.5, np.nan, np.inf])
@pytest.mark.parametrize("num_steps", [3, 4000])
def test_betas_outside_0_1_are_refused_by_name(bad, num_steps):
    """Also in the middle of a long vector, which numpy would print without its middle."""
    betas = np.full(num_steps, 0.125)
    betas[num_steps // 2] = bad
    with pytest.raises(ValueError, match=re.escape(str(bad))):
        schedules.from_betas(betas)


@pytest.mark.parametrize("bad", [[], [[0.1, 0.2]], 0.1, [0.1, 0.0]])
def test_betas_must_be_a_vector_of_steps_that_forget(bad):
    with pytest.raises(ValueError, match="betas"):
        schedules.from_betas(np.asarray(bad))


def test_a_beta_of_one_forgets_everything():
    schedule = schedules.from_betas([0.5, 1.0])
    assert schedule.alpha_bar.tolist() == [1, 0.5, 0] and schedule.one_minus_alpha_bar.tolist() == [0, 0.5, 1]


def test_signal_to_noise():
    """SNR(1) = 9999 and SNR(1000) by a float64 recursion; the data themselves have no noise."""
    snr = schedules.signal_to_noise(schedules.linear(1000), jnp.array([0, 1, 1000]))
    np.testing.assert_allclose(snr, [np.inf, 9999, 4.03599265117e-5], rtol=3e-7)


def test_the_betas_of_any_length_end_in_the_same_noise_or_are_refused():
    np.testing.assert_array_equal(schedules.linear_scaled(1000).alpha_bar, schedules.linear(1000).alpha_bar)
    last = [schedules.linear_scaled(num_steps, np.float64).alpha_bar[-1] for num_steps in (21, 100, 4000)]
    assert 0 < last[0] < last[1] < last[2] < 5e-5
    with pytest.raises(ValueError, match="timesteps must be at least 21, got 20"):
        schedules.linear_scaled(20)


@pytest.mark.parametrize("name", ["linear", "quadratic", "constant", "warmup", "sigmoid", "cosine", "steady"])
@pytest.mark.parametrize("num_steps", [0, -3])
def test_a_schedule_has_at_least_one_step(name, num_steps):
    assert getattr(schedules, name)(1).num_steps == 1
    with pytest.raises(ValueError, match=f"timesteps must be at least 1, got {num_steps}"):
        getattr(schedules, name)(num_steps)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: schedules.from_betas([0.1, np.nan] * 30), r"betas must lie in \(0, 1\], got nan at t = 2$"),
        (lambda: schedules.linear(10, -1e-4), r"betas must lie in \(0, 1\], got -0.0001 at t = 1$"),
        (lambda: schedules.quadratic(10, -1.0), "beta_1 and beta_T must be positive, got -1 and 0.02"),
        (lambda: schedules.warmup(10, 1.5), r"fraction must lie in \[0, 1\], got 1.5"),
        (lambda: schedules.warmup(10, -0.5), r"fraction must lie in \[0, 1\], got -0.5"),
    ],
)
def test_numbers_that_are_no_betas_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_betas_that_leave_nothing_before_the_end_are_refused():
    """0.8 ** 391 is the last that float32 holds: the steps after it would be zero over zero."""
    with pytest.raises(ValueError, match="t = 392 of 1000"):
        schedules.constant(1000, 0.2)
    assert np.isfinite(schedules.constant(392, 0.2).between(391, 392, 0)).all()
    assert schedules.constant(1000, 0.2, np.float64).alpha_bar[-1] > 0


@each_schedule
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_schedule_can_be_made_again_from_its_name_and_numbers(make, dtype):
    schedule = make(dtype=dtype)
    again = getattr(schedules, schedule.name)(schedule.num_steps, **schedule.numbers, dtype=dtype)
    assert (again.name, again.numbers) == (schedule.name, schedule.numbers)
    for table, other in zip(tables(schedule), tables(again), strict=True):
        np.testing.assert_array_equal(table, other)


def test_the_recorded_numbers_are_all_that_a_function_was_given():
    made = schedules.warmup(10, 0.3, 1e-3, 0.1)
    assert made.name == "warmup" and made.numbers == {"fraction": 0.3, "beta_1": 1e-3, "beta_T": 0.1}
    scaled = schedules.linear_scaled(100)
    assert scaled.name == "linear" and scaled.numbers == {"beta_1": 1e-3, "beta_T": 0.2}
    assert schedules.from_betas([0.5]).name == "betas" and not schedules.from_betas([0.5]).numbers


def test_traced_betas_give_the_schedule_of_the_same_betas():
    betas = np.geomspace(1e-3, 0.5, 40)
    traced = jax.jit(schedules.from_traced_betas)(jnp.asarray(betas, jnp.float32))
    for ours, exact in zip(tables(traced)[:3], tables(schedules.from_betas(betas))[:3], strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-5)
    np.testing.assert_allclose(betas_of(traced), betas, rtol=1e-4)
