"""Layers: known values of the timestep embedding, attention, resampling, gradients that are stored."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from ddpm_jax.networks import layers
from ddpm_jax.networks.layers import Attention, ResBlock, conv3x3, timestep_embedding
from ddpm_jax.networks.resampling import UpsampledConv, average, upsample


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


def test_averaging_undoes_upsampling():
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 4))
    np.testing.assert_allclose(average(upsample(x)), x, rtol=1e-6)


class ConvOfUpsampled(nn.Module):
    """`UpsampledConv` by its definition."""

    @nn.compact
    def __call__(self, x):
        return conv3x3(5, jnp.float32, "conv")(upsample(x))


def test_the_convolution_of_an_upsampled_image_and_its_gradients_are_those_of_the_definition():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    params = {"kernel": jax.random.normal(jax.random.key(1), (3, 3, 6, 5)), "bias": jnp.arange(5.0)}
    ours = jax.vjp(lambda params, x: UpsampledConv(5, jnp.float32).apply({"params": params}, x), params, x)
    theirs = jax.vjp(lambda params, x: ConvOfUpsampled().apply({"params": {"conv": params}}, x), params, x)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-4)
    slope = jax.random.normal(jax.random.key(2), ours[0].shape)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), ours[1](slope), theirs[1](slope))


def test_the_convolution_of_an_upsampled_image_computes_in_its_dtype():
    """Kernels are added before they are rounded, so that bfloat16 loses no more than in a 3x3 convolution."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 6))
    params = UpsampledConv(5, jnp.float32).init(jax.random.key(1), x)
    exact, rounded = (UpsampledConv(5, dtype).apply(params, x.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), exact, atol=0.03)


def on_gpu(*arguments, default, cuda=None, cpu=None):
    """What `jax.lax.platform_dependent` computes on a GPU."""
    return (cuda or default)(*arguments)


@pytest.fixture(params=["cpu", "gpu"])
def device(request, monkeypatch):
    """The device for which the functions of a test are traced; they must be new ones."""
    if request.param == "gpu":
        monkeypatch.setattr(jax.lax, "platform_dependent", on_gpu)
    return request.param


def test_attention_is_that_of_three_dense_layers(device):
    """Flax's dense layers and the softmax by its definition, with the same parameters."""
    attention, x = Attention(2, 4, jnp.float32, 1e-6), jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
    params = attention.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), params)
    h = nn.GroupNorm(4, epsilon=1e-6).apply({"params": params["norm"]}, x).reshape(2, 12, 8)
    query, key, value = (
        nn.Dense(8).apply({"params": params[name]}, h).reshape(2, 12, 2, 4) for name in ("query", "key", "value")
    )
    weights = jax.nn.softmax(jnp.einsum("bqhc,bkhc->bhqk", query, key) / 2)
    mixed = jnp.einsum("bhqk,bkhc->bqhc", weights, value).reshape(2, 3, 4, 8)
    expected = x + nn.Dense(8).apply({"params": params["out"]}, mixed)
    np.testing.assert_allclose(attention.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("resample", [average, upsample])
def test_a_residual_block_whose_last_convolution_is_zero_resamples_its_input(resample):
    block = ResBlock(8, groups=4, dropout=0.0, dtype=jnp.float32, epsilon=1e-6, resample=resample)
    x, emb = jax.random.normal(jax.random.key(0), (2, 4, 6, 8)), jnp.ones((2, 16))
    params = jax.jit(block.init, static_argnums=3)(jax.random.key(1), x, emb, False)["params"]
    silent = params | {"conv_out": jax.tree.map(jnp.zeros_like, params["conv_out"])}
    np.testing.assert_array_equal(block.apply({"params": silent}, x, emb, False), resample(x))


def test_attention_on_a_gpu_is_that_of_jax_with_its_gradients():
    """In float32 to its precision; in bfloat16, where the weights and their gradient are rounded, as far as that is."""
    arrays = [jax.random.normal(jax.random.key(n), (2, 12, 2, 4)) for n in range(4)]
    for dtype, limit in (("float32", 1e-5), ("bfloat16", 0.03)):
        *inputs, weight = (each.astype(dtype) for each in arrays)
        ours, back = jax.vjp(layers._attend_on_gpu, *inputs)
        exact, exact_back = jax.vjp(jax.nn.dot_product_attention, *(each.astype(jnp.float32) for each in inputs))
        for mine, other in zip((ours, *back(weight)), (exact, *exact_back(weight.astype(jnp.float32))), strict=True):
            assert mine.dtype == dtype
            np.testing.assert_allclose(mine.astype(jnp.float32), other, atol=limit * np.abs(other).max())


def test_attention_on_a_gpu_has_derivatives_of_both_modes_to_the_second_order(x64):
    inputs = tuple(jax.random.normal(jax.random.key(n), (1, 3, 2, 2)) for n in range(3))
    check_grads(jax.jit(lambda *given: layers._attend_on_gpu(*given)), inputs, order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("scale_shift", [False, True])
def test_a_residual_block_and_its_gradient_are_the_same_on_a_gpu(scale_shift, monkeypatch):
    block = ResBlock(12, groups=2, dropout=0.3, dtype=jnp.float32, epsilon=1e-6, scale_shift=scale_shift)
    x, emb = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(3, 4, 6, 8), (3, 16)]))
    params = jax.jit(block.init, static_argnums=3)(jax.random.key(1), x, emb, False)["params"]
    params = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), params)

    def loss(params, x, emb):
        return jnp.square(block.apply({"params": params}, x, emb, True, rngs={"dropout": jax.random.key(2)})).sum()

    def gradients():
        return jax.value_and_grad(lambda *given: loss(*given), (0, 1, 2))(params, x, emb)

    elsewhere = gradients()
    monkeypatch.setattr(jax.lax, "platform_dependent", on_gpu)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), gradients(), elsewhere)


def test_dropout_is_that_of_flax(device):
    """The same choice by the same key, also with a number of channels that does not fill bytes."""
    x, rngs = jax.random.normal(jax.random.key(0), (2, 3, 4, 13)), {"dropout": jax.random.key(1)}
    theirs = nn.Dropout(0.4, deterministic=False).apply({}, x, rngs=rngs)
    np.testing.assert_array_equal(layers.Dropout(0.4).apply({}, x, rngs=rngs), theirs)
    assert 0.2 < (theirs == 0).mean() < 0.6


def test_the_pixelwise_convolution_has_the_derivatives_of_a_product(device, x64):
    """Those of both modes to the second order, on a CPU, where one is a matrix product, and elsewhere."""
    x, kernel = (jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate([(2, 3, 2, 4), (4, 5)]))
    np.testing.assert_allclose(layers._pixelwise(x, kernel), jnp.einsum("bhwi,io->bhwo", x, kernel), rtol=1e-12)
    product = jax.jit(lambda x, kernel: layers._pixelwise(x, kernel))  # a new function, which no test has traced yet
    check_grads(product, (x, kernel), order=2, modes=("fwd", "rev"))


def test_a_stored_gradient_is_the_gradient_of_both_modes_to_the_second_order(x64):
    def f(x):
        return jnp.sin(layers.with_stored_gradient(x)) * x

    check_grads(jax.jit(f), (jnp.linspace(-2.0, 2.0, 7),), order=2, modes=("fwd", "rev"))


def test_the_gradients_behind_convolutions_and_dense_layers_are_stored():
    """Three barriers in the gradient of a residual block, and none in its output."""
    block = ResBlock(8, groups=2, dropout=0.0, dtype=jnp.float32, epsilon=1e-6)
    x, emb = jnp.ones((1, 4, 4, 8)), jnp.ones((1, 16))
    variables = block.init(jax.random.key(0), x, emb, False)
    assert (
        "optimization_barrier" not in jax.jit(block.apply, static_argnums=3).lower(variables, x, emb, False).as_text()
    )
    gradient = jax.jit(jax.grad(lambda variables: jnp.square(block.apply(variables, x, emb, False)).sum()))
    assert gradient.lower(variables).as_text().count("stablehlo.optimization_barrier") == 3
