"""Random augmentation."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.data import flip


def test_half_of_the_images_are_mirrored_and_none_is_changed_otherwise():
    images = jnp.arange(400 * 2 * 3, dtype=jnp.int32).reshape(400, 2, 3, 1)
    flipped = np.asarray(flip(jax.random.key(0), images))
    as_it_was = (flipped == images).all(axis=(1, 2, 3))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (as_it_was ^ mirrored).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
