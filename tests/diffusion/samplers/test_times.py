"""The times that a sampler visits: strictly falling, for every number of steps."""

import numpy as np
import pytest

from ddpm_jax.diffusion import samplers, schedules


def flat_in_the_middle(fraction):
    return 0.5 + 4 * (fraction - 0.5) ** 3


@pytest.mark.parametrize("spacing", [samplers.even, samplers.quadratic, np.sqrt, flat_in_the_middle])
def test_times_fall_strictly_from_the_last_to_the_data(spacing):
    """For every count of steps, also where the spacing alone would give a time twice."""
    for count in range(1, 1001):
        times = samplers.times(1000, count, spacing)
        assert len(times) == count + 1 and times[0] == 1000 and times[-1] == 0
        assert np.all(np.diff(times) < 0)


def test_even_times_are_even():
    for count in (3, 7, 50, 999):
        assert np.ptp(np.diff(samplers.times(1000, count))) <= 1


def test_quadratic_times_are_dense_near_the_data():
    """Half of the steps for the last quarter of the time."""
    times = samplers.times(1000, 20, samplers.quadratic)
    assert times[10] == 250 and np.all(np.diff(times, 2) >= -1)


@pytest.mark.parametrize("count", [0, -1, 11])
def test_no_steps_and_too_many_are_refused(count):
    with pytest.raises(ValueError, match=f"--steps must be between 1 and 10, got {count}$"):
        samplers.times(10, count)


@pytest.mark.parametrize("spacing", samplers.SPACINGS.values(), ids=samplers.SPACINGS)
def test_every_spacing_falls_to_the_data(spacing):
    for schedule in (schedules.linear(1000), schedules.cosine(50)):
        for count in (1, 2, 3, 10, 50):
            times = spacing(schedule, count)
            assert len(times) == count + 1 and times[-1] == 0 and times[0] <= schedule.num_steps
            assert np.all(np.diff(times) < 0) and times[-2] >= 1
        with pytest.raises(ValueError, match=f"--steps must be between 1 and {schedule.num_steps}, got 0$"):
            spacing(schedule, 0)


@pytest.mark.parametrize("name", ["even", "quadratic", "linspace", "karras", "logsnr"])
def test_these_spacings_begin_at_the_last_time(name):
    assert samplers.SPACINGS[name](schedules.linear(1000), 20)[0] == 1000


def test_the_levels_of_karras_are_the_published_ones():
    """The grid of 18 levels from 157.4 to 0.01 (Karras et al. 2022, Eq. 5, computed in float64)."""
    schedule = schedules.linear(1000, dtype=np.float64)
    alpha_bar, one_minus = schedule.at(samplers.karras(schedule, 18)[:-1], 1)
    levels = np.sqrt(one_minus / alpha_bar)
    expected = [157.407281, 114.848316, 82.559613, 0.081832798, 0.030946664, 0.0100005]
    np.testing.assert_allclose(levels[[0, 1, 2, -3, -2, -1]], expected, rtol=2e-5)


def test_even_log_signal_to_noise_ratios():
    schedule = schedules.linear(1000)
    alpha_bar, one_minus = schedule.at(samplers.logsnr(schedule, 9)[:-1], 1)
    assert np.ptp(np.diff(np.log(alpha_bar / one_minus))) < 1e-3


def test_the_spacings_of_others():
    schedule = schedules.linear(1000)
    assert samplers.leading(schedule, 4).tolist() == [751, 501, 251, 1, 0]
    assert samplers.linspace(schedule, 4).tolist() == [1000, 667, 334, 1, 0]
