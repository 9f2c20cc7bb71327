"""The distance to the nearest of many examples: exact where pixels are large and differences small."""

import jax.numpy as jnp
import numpy as np

from ddpm_jax.metrics import nearest


def test_the_nearest_is_found_in_any_block_at_its_distance():
    others = np.random.default_rng(0).uniform(0, 255, (30, 48)).astype(np.float32)
    x = others[[3, 17, 29]] + np.float32([[0.0], [2.0], [-5.0]])
    for size in (1, 7, 30):
        blocks = (jnp.asarray(others[first : first + size]) for first in range(0, 30, size))
        np.testing.assert_allclose(nearest(jnp.asarray(x), blocks), [0, 2, 5], rtol=1e-5)


def test_a_common_brightness_does_not_blur_small_distances():
    others = 250 + np.random.default_rng(1).uniform(0, 1, (20, 3072)).astype(np.float32)
    blocks = [jnp.asarray(others)]
    np.testing.assert_allclose(nearest(jnp.asarray(others[:5] + 0.01), blocks), [0.01] * 5, rtol=1e-2)
