"""Clipping of x_0: what it changes, what it leaves as it is, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import images, output_for

from ddpm_jax.diffusion import gaussian, parameterizations, schedules

each_kind = pytest.mark.parametrize("kind", ["eps", "x0", "v", "mean"])


@pytest.fixture
def process(x64):
    return gaussian.process(schedules.linear(1000, dtype=np.float64))


def make(kind, process, variance=parameterizations.fixed_small):
    return getattr(parameterizations, kind)(process, variance)


@each_kind
def test_clipping_moves_the_kernel_to_the_clipped_x_0(kind, process):
    _, x_t, output = images()
    t = np.array([1, 2, 500, 1000])
    plain = make(kind, process, parameterizations.fixed_large)
    clipped = parameterizations.clipped(process, plain)
    far = output_for(plain, process, 3 * output, x_t, t)  # an x_0 outside the range
    x_0 = clipped.x_0(far, x_t, t)
    np.testing.assert_allclose(x_0, jnp.clip(3 * output, -1, 1), rtol=1e-8)
    assert jnp.abs(plain.x_0(far, x_t, t)).max() > 2 and jnp.abs(x_0).max() == 1
    kernel = clipped.kernel(far, x_t, t, t - 1)
    np.testing.assert_allclose(kernel.mean, process.posterior(x_t, x_0, t, t - 1).mean, rtol=1e-12)
    np.testing.assert_array_equal(kernel.variance, plain.kernel(far, x_t, t, t - 1).variance)


@each_kind
def test_clipping_changes_neither_the_error_nor_what_lies_inside(kind, process):
    x_0, x_t, output = images()
    plain = make(kind, process)
    clipped = parameterizations.clipped(process, plain)
    np.testing.assert_array_equal(clipped.error(output, x_0, x_t, 500), plain.error(output, x_0, x_t, 500))
    inside = output_for(plain, process, x_0, x_t, 500)
    for with_, without in zip(clipped.kernel(inside, x_t, 500, 499), plain.kernel(inside, x_t, 500, 499), strict=True):
        np.testing.assert_allclose(with_, without, rtol=1e-12)


def test_clipping_has_the_bounds_it_was_given(process):
    _, x_t, output = images()
    clipped = parameterizations.clipped(process, make("x0", process), low=-0.25, high=0.5)
    np.testing.assert_array_equal(clipped.x_0(output, x_t, 3), jnp.clip(output, -0.25, 0.5))
    assert clipped.clip == (-0.25, 0.5)


@each_kind
def test_unclipped_is_what_was_clipped(kind, process):
    _, x_t, output = images()
    plain = make(kind, process, parameterizations.fixed_large)
    back = parameterizations.clipped(process, plain).unclipped()
    assert (back.rules, back.name, back.variance, back.clip) == (plain.rules, kind, parameterizations.fixed_large, None)
    np.testing.assert_array_equal(back.x_0(9 * output, x_t, 500), plain.x_0(9 * output, x_t, 500))
    assert plain.unclipped() is plain and back.unclipped() is back


def test_a_second_range_takes_the_place_of_the_first(process):
    _, x_t, output = images()
    plain = make("x0", process)
    wider = parameterizations.clipped(process, parameterizations.clipped(process, plain, -0.1, 0.1), -0.5, 0.5)
    np.testing.assert_array_equal(wider.x_0(output, x_t, 3), jnp.clip(output, -0.5, 0.5))
    assert wider.clip == (-0.5, 0.5) and wider.unclipped().rules == plain.rules


def doubled(output):
    return jnp.concatenate([output, jnp.sin(output)], axis=-1)


@pytest.mark.parametrize("wrap", [parameterizations.learned, parameterizations.fixed_last])
def test_what_wraps_a_clipped_parameterization_unclips_with_it(wrap, process):
    _, x_t, output = images()
    plain, t = make("x0", process), np.array([1, 2, 500, 1000])
    output = doubled(3 * output) if wrap is parameterizations.learned else 3 * output
    wrapped, both = wrap(process, plain), wrap(process, parameterizations.clipped(process, plain))
    clipped = both.x_0(output, x_t, t)
    assert clipped.shape == x_t.shape and jnp.abs(clipped[1:]).max() == 1 and both.clip == (-1, 1)
    back = both.unclipped()
    assert back.name == wrapped.name and back.clip is None
    for ours, theirs in zip(back.kernel(output, x_t, t, t - 1), wrapped.kernel(output, x_t, t, t - 1), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_dynamic_thresholding_scales_an_image_that_leaves_the_range():
    """With all pixels within the quantile the image is divided by its greatest; one inside the range is unchanged."""
    process = gaussian.process(schedules.linear(10))
    made = parameterizations.thresholded(process, parameterizations.x0(process), 1.0)
    inside, outside = jnp.linspace(-1, 0.5, 16).reshape(1, 4, 4, 1), jnp.linspace(-4, 2, 16).reshape(1, 4, 4, 1)
    found = made.x_0(jnp.concatenate([inside, outside]), jnp.zeros((2, 4, 4, 1)), 5)
    np.testing.assert_allclose(found, jnp.concatenate([inside, outside / 4]), rtol=1e-6)


def test_dynamic_thresholding_below_the_range_is_clipping():
    """Where few pixels leave the range, their quantile is below 1, and x_0 is clipped to it: at any step."""
    process = gaussian.process(schedules.linear(10))
    clipped = parameterizations.clipped(process, parameterizations.x0(process))
    made = parameterizations.thresholded(process, clipped, 0.5)
    output = jnp.full((1, 4, 4, 1), 0.3).at[0, 0, :3].set(5.0)
    x_t = jnp.ones((1, 4, 4, 1))
    for ours, theirs in zip(made.kernel(output, x_t, 7, 3), clipped.kernel(output, x_t, 7, 3), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(made.unclipped().x_0(output, x_t, 7), output)


def test_dynamic_thresholding_of_an_image_ignores_the_others():
    process = gaussian.process(schedules.linear(10))
    made = parameterizations.thresholded(process, parameterizations.x0(process), 0.9)
    output = 3 * jax.random.normal(jax.random.key(0), (4, 4, 4, 1)) * jnp.arange(4)[:, None, None, None]
    together = made.x_0(output, output, 5)
    alone = jnp.concatenate([made.x_0(output[n : n + 1], output[n : n + 1], 5) for n in range(4)])
    np.testing.assert_array_equal(together, alone)
    assert jnp.abs(together).max() <= 1
