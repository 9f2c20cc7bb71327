"""RePaint, SDEdit and slerp: published counts, and laws on data whose conditional distribution is known."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys

from ddpm_jax.diffusion import gaussian, guidance, parameterizations, samplers, schedules

RHO = 0.9
"""The correlation of two coordinates of variance 1."""


def correlated(schedule):
    """E[noise | x_t] for two coordinates N(0, 1) with correlation RHO, by conditioning a Gaussian."""
    covariance = np.array([[1, RHO], [RHO, 1]], np.float32)

    def network(x_t, t, condition):
        alpha_bar, one_minus = schedule.at(t, 0)
        return jnp.sqrt(one_minus) * (x_t @ jnp.linalg.inv(alpha_bar * covariance + one_minus * jnp.eye(2)))

    return network


@pytest.mark.parametrize(
    "steps, jump, resamples, down, up",
    [(250, 10, 10, 2410, 2160), (50, 5, 3, 140, 90), (50, 5, 1, 50, 0)],
)
def test_repaint_makes_the_published_number_of_visits(steps, jump, resamples, down, up):
    visits = guidance.repaint_times(samplers.times(steps, steps), jump, resamples)
    moves = [int(after) - int(before) for before, after in pairwise(visits)]
    assert (moves.count(-1), moves.count(1), len(moves)) == (down, up, down + up)
    assert visits[0] == steps and visits[-1] == 0 and np.all(visits[:-1] > 0)


def test_the_first_jump_is_where_that_of_the_paper_is():
    """Index 230 of 0..249 in the released code, where index -1 is the data: t = 231 here."""
    visits = guidance.repaint_times(samplers.times(250, 250), 10, 10)
    assert visits[:20].tolist() == list(range(250, 230, -1))
    assert visits[19:31].tolist() == [*range(231, 242), 240]


def test_jumps_are_between_the_times_that_are_given():
    times = np.array([100, 60, 30, 10, 0])
    assert guidance.repaint_times(times, 2, 2).tolist() == [100, 60, 30, 10, 30, 60, 30, 10, 0]


@pytest.mark.parametrize("jump, resamples, name", [(0, 2, "--jump"), (2, 0, "--resamples")])
def test_numbers_that_cannot_be_are_refused(jump, resamples, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        guidance.repaint_times(samplers.times(20, 20), jump, resamples)


def test_the_error_of_repaint_falls_with_resampling():
    """One coordinate is known to be 1.5: the other is N(1.5 RHO, 1 - RHO^2)."""
    process = gaussian.process(schedules.linear_scaled(40), gaussian.density)
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    plain = samplers.ddpm(process, parameterization, correlated(process.schedule))
    known, x_T = jnp.full((2000, 2), 1.5), jax.random.normal(jax.random.key(1), (2000, 2))
    sampler = guidance.repaint(plain, process, known, jnp.array([True, False]))
    draw = jax.jit(lambda times: samplers.sample(keys(2000), sampler, x_T, times)[:, 1])
    errors = []
    for resamples in (1, 2, 4):
        x = np.asarray(draw(guidance.repaint_times(samplers.times(40, 40), 4, resamples)), np.float64)
        errors.append((abs(x.mean() - 1.5 * RHO), abs(x.var() - (1 - RHO**2))))
    assert errors[0][0] > 1.4 * errors[1][0] > 1.4**2 * errors[2][0]
    assert errors[0][1] > errors[1][1] > errors[2][1]


def test_sdedit_returns_the_guide_at_0_and_the_data_at_1():
    process = gaussian.process(schedules.linear_scaled(100), gaussian.density)
    sampler = samplers.ddpm(process, parameterizations.eps(process), correlated(process.schedule))
    guide, times = jnp.full((2000, 2), 3.0), samplers.times(100, 100)
    edit = jax.jit(lambda times: guidance.sdedit(keys(2000), sampler, process, guide, times))
    np.testing.assert_array_equal(edit(guidance.part_from(times, 0.0)), guide)
    distances = [float(jnp.abs(edit(guidance.part_from(times, share)) - guide).mean()) for share in (0.1, 0.4, 1.0)]
    assert distances[0] < distances[1] < distances[2]
    whole = np.asarray(edit(guidance.part_from(times, 1.0)))
    assert np.abs(whole.mean(axis=0)).max() < 0.15 and abs(np.corrcoef(whole.T)[0, 1] - RHO) < 0.03


def test_a_strength_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"--strength must lie in \[0, 1\], got 1.5"):
        guidance.part_from(samplers.times(10, 10), 1.5)


def test_slerp_is_the_arc_of_a_great_circle(x64):
    """Between two vectors of one length: that length, an angle from the start that is proportional to the share."""
    draws = np.random.default_rng(0).normal(size=(2, 5, 3, 2))
    start, end = (jnp.asarray(x / np.sqrt((x**2).sum((1, 2), keepdims=True))) for x in draws)
    angle = np.arccos((start * end).sum((1, 2)))
    for share in (0.0, 0.25, 0.5, 1.0):
        between = guidance.slerp(start, end, share)
        np.testing.assert_allclose((between**2).sum((1, 2)), 1, rtol=1e-12)
        np.testing.assert_allclose(np.arccos(np.clip((start * between).sum((1, 2)), -1, 1)), share * angle, atol=1e-7)
    each = guidance.slerp(start, end, jnp.linspace(0, 1, 5))
    np.testing.assert_allclose(each[jnp.array([0, 4])], jnp.stack([start[0], end[4]]), atol=1e-12)


def test_slerp_of_a_vector_with_itself_is_that_vector():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    np.testing.assert_allclose(guidance.slerp(x, x, 0.3), x, rtol=1e-6)
