"""The times that a sampler visits: strictly falling, for every number of steps."""

import numpy as np
import pytest

from ddpm_jax.diffusion import samplers


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


def test_spacings_have_names():
    assert {"even": samplers.even, "quadratic": samplers.quadratic} == samplers.SPACINGS
    assert {"ancestral": samplers.ddpm, "ddim": samplers.ddim} == samplers.SAMPLERS
