"""Encodings: from stored values to x_0 and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.data.encodings import as_picture, evenly, points, standardized, to_float, to_uint8, truncated


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_fill_the_range_evenly(levels):
    values = to_float(jnp.arange(levels, dtype=jnp.uint8), levels)
    np.testing.assert_allclose(values, np.linspace(-1, 1, levels), atol=1e-6)
    np.testing.assert_array_equal(to_uint8(values), np.rint(np.linspace(0, 255, levels)))


def test_truncated_samples_are_half_a_level_darker():
    """Values evenly spread between levels are rounded to the nearest, or truncated: the means differ by one half."""
    images = jnp.linspace(-1, 1, 100_001)
    difference = to_uint8(images).astype(float).mean() - truncated().decode(images).astype(float).mean()
    assert difference == pytest.approx(0.5, abs=0.01)
    assert truncated().decode(jnp.array([-9.0, -1, 1, 9])).tolist() == [0, 0, 255, 255]


def test_values_outside_the_range_are_clipped_and_do_not_wrap():
    np.testing.assert_array_equal(to_uint8(jnp.array([-9.0, 9.0])), [0, 255])


# truncation may lose a level where float32 rounds down
@pytest.mark.parametrize("encoding, lost", [(evenly(), 0), (truncated(), 1), (standardized(0.3, 0.2), 0)])
def test_decoding_inverts_encoding_and_a_unit_has_the_stated_levels(encoding, lost):
    """Bytes that are d levels apart are d / unit apart in x_0."""
    stored = jnp.arange(256, dtype=jnp.uint8)[:, None]
    x_0 = encoding.encode(keys(256), stored)
    difference = np.asarray(stored, int) - np.asarray(encoding.decode(x_0))
    assert difference.min() == 0 and difference.max() <= lost
    slope = np.polyfit(np.arange(256), np.asarray(x_0, float)[:, 0], 1)[0]
    assert slope == pytest.approx(1 / encoding.unit, rel=1e-2)


def test_bits_fill_the_range_of_a_binomial_process():
    stored = jnp.array([0, 1], jnp.uint8)
    np.testing.assert_array_equal(evenly(2, 0.0).encode(keys(2), stored), [0, 1])
    np.testing.assert_array_equal(evenly(2, 0.0).decode(jnp.array([0.0, 1.0])), [0, 255])


def test_points_are_unchanged():
    stored = np.array([[0.5, -3.0]], np.float32)
    np.testing.assert_array_equal(points().decode(points().encode(keys(1), jnp.asarray(stored))), stored)


def test_pictures_of_stored_data_have_256_levels():
    np.testing.assert_array_equal(as_picture(jnp.array([0, 8, 16], jnp.uint8), 17), [0, 128, 255])
    np.testing.assert_array_equal(as_picture(jnp.array([0, 77, 255], jnp.uint8), 256), [0, 77, 255])
    np.testing.assert_array_equal(as_picture(jnp.array([0.25]), None), [0.25])


def keys(num: int):
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(num))


def test_bytes_become_continuous_before_they_are_scaled():
    """Uniform over one level, so that rounding down gives the bytes back; the width is 1 / (256 deviation)."""
    encoding = standardized(0.3, 0.2)
    stored = jnp.full((2000, 1, 1, 1), 77, jnp.uint8)
    x_0 = encoding.encode(keys(2000), stored)
    spread = (np.asarray(x_0) * 0.2 + 0.3) * 256
    assert 77 <= spread.min() < 77.01 and 77.99 < spread.max() <= 78.0001
    five = encoding.encode(keys(5), stored[:5])
    np.testing.assert_array_equal(five, x_0[:5])  # the noise of an example depends on its own key only
