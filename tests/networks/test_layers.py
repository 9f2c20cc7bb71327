"""Layers: known values of the timestep embedding, group normalization beside Flax's, resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ddpm_jax.networks import layers
from ddpm_jax.networks.layers import timestep_embedding, upsample


def test_timestep_embedding_has_the_known_values():
    """sin and cos of t times the frequencies of Ho et al. 2020, computed with a pocket calculator."""
    embedding = np.asarray(timestep_embedding(jnp.array([0, 1, 500, 999]), 128))
    np.testing.assert_allclose(embedding[0], [0.0] * 64 + [1.0] * 64)
    expected = {0: 0.8414709848, 1: 0.7604387421, 32: 0.0092949641, 63: 1e-4, 64: 0.5403023059, 127: 0.999999995}
    np.testing.assert_allclose(embedding[1][list(expected)], list(expected.values()), rtol=2e-5)
    np.testing.assert_allclose(embedding[2][[0, 1, 63, 64]], [-0.4677718, -0.9996817, 0.0499792, -0.8838493], atol=5e-5)
    np.testing.assert_allclose(embedding[3][[0, 127]], [-0.0264608, 0.9950141], atol=1e-4)
    np.testing.assert_allclose(np.square(embedding).sum(axis=1), 64, rtol=1e-5)


def test_embeddings_of_real_indices_follow_the_addition_theorems():
    """sin(a + b) = sin a cos b + cos a sin b, and the same for cos; at integers they are those of the integers."""
    whole, share = jnp.array([0, 3, 40]), jnp.array([0.25, 0.5, 0.75])
    (sin_a, cos_a), (sin_b, cos_b), (sin, cos) = (
        np.split(np.asarray(timestep_embedding(index, 32), float), 2, axis=1) for index in (whole, share, whole + share)
    )
    np.testing.assert_allclose(sin, sin_a * cos_b + cos_a * sin_b, atol=2e-5)
    np.testing.assert_allclose(cos, cos_a * cos_b - sin_a * sin_b, atol=2e-5)
    np.testing.assert_array_equal(timestep_embedding(whole.astype(float), 32), timestep_embedding(whole, 32))


def test_an_odd_width_ends_in_a_zero():
    assert (np.asarray(timestep_embedding(jnp.arange(5), 7))[:, -1] == 0).all()


def test_upsampling_repeats_each_pixel():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], np.kron(np.arange(6.0).reshape(2, 3), np.ones((2, 2))))


@pytest.mark.parametrize(("groups", "dtype"), [(4, "float32"), (1, "float32"), (8, "bfloat16")])
def test_the_group_norm_and_its_gradient_are_those_of_flax(groups, dtype):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (3, 6, 5, 16))
    weight = jax.random.normal(jax.random.key(1), x.shape)
    params = {"scale": jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}

    def called(module):
        return jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x.astype(dtype))

    ours, ours_back = called(layers.GroupNorm(groups, dtype, 1e-3))
    theirs, theirs_back = called(nn.GroupNorm(groups, epsilon=1e-3, dtype=dtype))
    close = {"rtol": 2e-2, "atol": 2e-1} if dtype == "bfloat16" else {"rtol": 1e-4, "atol": 1e-4}
    assert ours.dtype == theirs.dtype
    for mine, other in zip(
        jax.tree.leaves((ours, ours_back(weight.astype(dtype)))),
        jax.tree.leaves((theirs, theirs_back(weight.astype(dtype)))),
        strict=True,
    ):
        np.testing.assert_allclose(mine.astype(jnp.float32), other.astype(jnp.float32), **close)


def test_the_group_norm_computes_in_float32_for_any_input():
    x = (100 + jax.random.normal(jax.random.key(0), (2, 8, 4, 12))).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(12), "bias": jnp.zeros(12)}
    expected = layers.group_norm(x.astype(jnp.float32), params["scale"], params["bias"], 3, 1e-6)
    found = layers.GroupNorm(3, jnp.bfloat16).apply({"params": params}, x)
    np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_a_group_norm_leaves_mean_zero_and_variance_one_in_each_group():
    x = 100 + jnp.exp(jax.random.normal(jax.random.key(0), (2, 8, 4, 12)))
    y = layers.group_norm(x, jnp.ones(12), jnp.zeros(12), 3, 1e-6).reshape(2, 8, 4, 3, 4)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 4)), 0, atol=1e-2)
    np.testing.assert_allclose(y.var(axis=(1, 2, 4)), 1, atol=1e-2)
