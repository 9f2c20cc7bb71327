"""The networks against the papers' counts, the embedding's known values, and invariances."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ddpm_jax.networks import MLP, UNet, layers
from ddpm_jax.networks.layers import timestep_embedding, upsample

SMALL: dict[str, Any] = {
    "width": 8,
    "multipliers": (1, 2),
    "num_blocks": 1,
    "attention": (4,),
    "groups": 4,
    "dropout": 0.0,
}


def parameters(network: UNet, shape: tuple[int, ...]) -> int:
    tree = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32))
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def variables_of(network, shape=(2, 8, 8, 1)):
    """Variables none of which is zero, as layers that start at zero are; with images and indices for them."""
    x, index = jax.random.normal(jax.random.key(1), shape), jnp.arange(shape[0])
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, index)
    draws = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(draws.normal(0, 0.3, leaf.shape), leaf.dtype), shapes), x, index


def apply(network, *args, **kwargs):
    return jax.jit(partial(network.apply, **kwargs))(*args)


@pytest.mark.parametrize(
    "network, shape, count",
    [
        (UNet(), (32, 32, 3), 35_746_307),
        (UNet(out_channels=6), (32, 32, 3), 35_749_766),
        (UNet(), (32, 32, 1), 35_741_697),
        (UNet(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0), (256, 256, 3), 113_673_219),
        (UNet(width=192, multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0), (256, 256, 3), 255_677_955),
        (UNet(multipliers=(1, 2, 2, 2, 4)), (64, 64, 3), 78_700_803),
    ],
)
def test_parameter_counts_of_the_papers(network, shape, count):
    """Ho et al. 2020, Appendix B (35.7M, 114M, 256M); Song et al. 2021, CelebA 64; counted from the released code."""
    assert parameters(network, shape) == count


def test_timestep_embedding_has_the_known_values():
    """sin and cos of t times the frequencies of Ho et al. 2020, by pocket calculator."""
    embedding = np.asarray(timestep_embedding(jnp.array([0, 1, 500, 999]), 128))
    np.testing.assert_allclose(embedding[0], [0.0] * 64 + [1.0] * 64)
    expected = {0: 0.8414709848, 1: 0.7604387421, 32: 0.0092949641, 63: 1e-4, 64: 0.5403023059, 127: 0.999999995}
    np.testing.assert_allclose(embedding[1][list(expected)], list(expected.values()), rtol=2e-5)
    np.testing.assert_allclose(embedding[2][[0, 1, 63, 64]], [-0.4677718, -0.9996817, 0.0499792, -0.8838493], atol=5e-5)
    np.testing.assert_allclose(embedding[3][[0, 127]], [-0.0264608, 0.9950141], atol=1e-4)
    np.testing.assert_allclose(np.square(embedding).sum(axis=1), 64, rtol=1e-5)


def test_odd_width_ends_in_a_zero():
    assert (np.asarray(timestep_embedding(jnp.arange(5), 7))[:, -1] == 0).all()


def test_starts_at_almost_zero():
    network = UNet(**SMALL)
    x, index = jnp.ones((2, 8, 8, 1)), jnp.arange(2)
    hurry = {"xla_backend_optimization_level": 0}  # what runs once takes longest to compile
    variables = jax.jit(network.init, compiler_options=hurry)(jax.random.key(0), x, index)
    assert jnp.abs(apply(network, variables, x, index)).max() < 1e-3


@pytest.mark.parametrize("shape", [(1, 8, 12, 3), (1, 6, 4, 1)])
def test_non_square_images_and_any_channels(shape):
    variables, x, index = variables_of(UNet(**SMALL), shape)
    assert apply(UNet(**SMALL), variables, x, index).shape == shape


def test_examples_do_not_see_each_other():
    variables, x, index = variables_of(UNet(**SMALL))
    both = apply(UNet(**SMALL), variables, x, index)
    alone = apply(UNet(**SMALL), variables, x[1:], index[1:])
    np.testing.assert_allclose(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_timestep_and_the_label_are_heard():
    network = UNet(**SMALL, num_classes=3)
    variables, x, index = variables_of(network)
    labelled = [apply(network, variables, x, index, jnp.full(2, label)) for label in range(4)]
    assert all(jnp.abs(labelled[0] - other).max() > 1e-3 for other in labelled[1:])
    np.testing.assert_array_equal(labelled[3], apply(network, variables, x, index))  # num_classes is "no label"
    assert jnp.abs(apply(network, variables, x, index + 7) - labelled[3]).max() > 1e-3


def test_rematerialisation_changes_neither_values_nor_gradients():
    flat = {**SMALL, "multipliers": (1,), "attention": (8,)}
    variables, x, index = variables_of(UNet(**flat))

    def loss(variables, remat):
        return jnp.square(UNet(**flat, remat=remat).apply(variables, x, index)).mean()

    plain, again = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(variables, remat) for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)


def test_bfloat16_computes_near_float32_on_float32_parameters():
    variables, x, index = variables_of(UNet(**SMALL))
    half = UNet(**SMALL, dtype=jnp.bfloat16)
    stored = jax.eval_shape(half.init, jax.random.key(0), x, index)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype("float32")}
    exact, rough = apply(UNet(**SMALL), variables, x, index), apply(half, variables, x, index)
    assert rough.dtype == jnp.float32 and not np.array_equal(exact, rough)
    assert jnp.linalg.norm(rough - exact) < 0.05 * jnp.linalg.norm(exact)


def test_heads_divide_the_channels_but_not_the_parameters():
    one, two = UNet(**SMALL), UNet(**SMALL, heads=2)
    variables, x, index = variables_of(one)
    assert jnp.abs(apply(one, variables, x, index) - apply(two, variables, x, index)).max() > 1e-6


def test_dropout_acts_in_training_only():
    network = UNet(**{**SMALL, "dropout": 0.5})
    variables, x, index = variables_of(network)
    quiet = apply(network, variables, x, index)
    loud = apply(network, variables, x, index, train=True, rngs={"dropout": jax.random.key(2)})
    np.testing.assert_array_equal(quiet, apply(UNet(**SMALL), variables, x, index))
    assert jnp.abs(loud - quiet).max() > 1e-3


@pytest.mark.parametrize(
    "network, shape, told",
    [(UNet(), (1, 28, 28, 1), "28x28.*multiple of 8"), (UNet(width=40), (1, 32, 32, 3), "40 channels.*groups=32")],
)
def test_what_cannot_be_built_is_said(network, shape, told):
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros((1,), jnp.int32))


def test_upsampling_repeats_each_pixel():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    np.testing.assert_array_equal(upsample(x)[0, :, :, 0], np.kron(np.arange(6.0).reshape(2, 3), np.ones((2, 2))))


def test_perceptron_hears_the_timestep():
    network = MLP(width=16, depth=2)
    variables, x, index = variables_of(network, (4, 2))
    assert jnp.abs(apply(network, variables, x, index) - apply(network, variables, x, index + 9)).max() > 1e-3


@pytest.mark.parametrize(("groups", "dtype"), [(4, "float32"), (1, "float32"), (8, "bfloat16")])
def test_the_group_norm_is_that_of_flax_and_so_is_its_gradient(groups, dtype):
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


def test_the_group_norm_computes_in_float32_whatever_its_input():
    x = (100 + jax.random.normal(jax.random.key(0), (2, 8, 4, 12))).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(12), "bias": jnp.zeros(12)}
    wanted = layers.group_norm(x.astype(jnp.float32), params["scale"], params["bias"], 3, 1e-6)
    found = layers.GroupNorm(3, jnp.bfloat16).apply({"params": params}, x)
    np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16))


def test_a_group_norm_leaves_mean_zero_and_variance_one_in_each_group():
    x = 100 + jnp.exp(jax.random.normal(jax.random.key(0), (2, 8, 4, 12)))
    y = layers.group_norm(x, jnp.ones(12), jnp.zeros(12), 3, 1e-6).reshape(2, 8, 4, 3, 4)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 4)), 0, atol=1e-2)
    np.testing.assert_allclose(y.var(axis=(1, 2, 4)), 1, atol=1e-2)
