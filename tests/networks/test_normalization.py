"""Group normalization beside Flax's and in float64, with and without swish; its derivatives, also those of a GPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from ddpm_jax.networks import normalization
from ddpm_jax.networks.normalization import GroupNorm, group_norm


@pytest.mark.parametrize(("groups", "dtype"), [(4, "float32"), (1, "float32"), (8, "bfloat16")])
def test_the_group_norm_and_its_gradient_are_those_of_flax(groups, dtype):
    x = 2 + 3 * jax.random.normal(jax.random.key(0), (3, 6, 5, 16))
    weight = jax.random.normal(jax.random.key(1), x.shape)
    params = {"scale": jnp.linspace(0.5, 2, 16), "bias": jnp.linspace(-1, 1, 16)}

    def called(module):
        return jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x.astype(dtype))

    ours, ours_back = called(GroupNorm(groups, dtype, 1e-3))
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
    expected = group_norm(x.astype(jnp.float32), params["scale"], params["bias"], 3, 1e-6)
    found = GroupNorm(3, jnp.bfloat16).apply({"params": params}, x)
    np.testing.assert_array_equal(found, expected.astype(jnp.bfloat16))


def test_a_group_norm_leaves_mean_zero_and_variance_one_in_each_group():
    x = 100 + jnp.exp(jax.random.normal(jax.random.key(0), (2, 8, 4, 12)))
    y = group_norm(x, jnp.ones(12), jnp.zeros(12), 3, 1e-6).reshape(2, 8, 4, 3, 4)
    np.testing.assert_allclose(y.mean(axis=(1, 2, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=(1, 2, 4)), 1, atol=1e-5)


GROUPS, EPSILON = 2, 1e-6


def normalized(x, scale, bias):
    return group_norm(x, scale, bias, GROUPS, EPSILON)


def with_swish(x, scale, bias):
    return normalization._swish(x.dtype, x, *normalization._terms(x, scale, bias, GROUPS, EPSILON))


@pytest.fixture(params=["group norm", "with swish", "with swish, as on a GPU"])
def function(request, monkeypatch):
    """A function that no test has traced yet."""
    if request.param.endswith("GPU"):
        jax.clear_caches()
        monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cuda, default: cuda(*arguments))
    chosen = normalized if request.param == "group norm" else with_swish
    return lambda *arguments: chosen(*arguments)


def exactly(x, scale, bias):
    """In two passes: first the mean, then the squares of the distances to it."""
    grouped = x.reshape(*x.shape[:3], GROUPS, -1)
    centred = grouped - grouped.mean(axis=(1, 2, 4), keepdims=True)
    deviation = jnp.sqrt(jnp.square(centred).mean(axis=(1, 2, 4), keepdims=True) + EPSILON)
    return (centred / deviation).reshape(x.shape) * scale.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


def with_gradients(function, arguments, weight):
    """The values, and the gradients of a weighted sum of their squares."""
    values = jax.jit(function)(*arguments)
    loss = lambda *given: (jnp.square(function(*given)) * weight).sum()  # noqa: E731
    return [np.asarray(each, np.float64) for each in (values, *jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments))]


def far_from_zero(offset):
    return offset + np.random.default_rng(0).normal(size=(2, 8, 12, 8))


def bright_pixel():
    """In the middle row, on which the pivot depends: it is far from the mean."""
    x = 1e-3 * np.random.default_rng(0).normal(size=(2, 32, 32, 8))
    x[:, 16, 16] += 1000
    return x


def blocks_far_apart():
    """The middle row is at the one value, three quarters of the image at another."""
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 8))
    x[:, 16:24] += 1000
    return x


IMAGES = {
    "mean 0": far_from_zero(0.0),
    "mean 30": far_from_zero(30.0),
    "mean 1000": far_from_zero(1000.0),
    "mean -1000": far_from_zero(-1000.0),
    "bright pixel": bright_pixel(),
    "blocks": blocks_far_apart(),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_group_norm_is_precise_however_far_the_mean_is_from_zero(kind, function, request):
    """Values, and gradients by x, scale and bias, in float32 against float64, for means of up to 1000 deviations."""
    x = IMAGES[kind].astype(np.float32)
    weight = (1 + np.random.default_rng(1).normal(size=x.shape)).astype(np.float32)
    arguments = (x, np.linspace(0.5, 2, 8, dtype=np.float32), np.linspace(-1, 1, 8, dtype=np.float32))
    found = with_gradients(function, [jnp.asarray(each) for each in arguments], weight)
    swish = "swish" in request.node.callspec.params["function"]
    definition = (lambda *given: nn.swish(exactly(*given))) if swish else exactly
    with jax.enable_x64(True):
        expected = with_gradients(definition, [jnp.asarray(each, jnp.float64) for each in arguments], weight)
    limits = (1e-5, 1e-4, 1e-3, 1e-5)  # relative to the largest, or to 1; the scale has a sum over products with x
    for limit, mine, exact in zip(limits, found, expected, strict=True):
        assert np.abs(mine - exact).max() < limit * max(1, np.abs(exact).max())


def test_a_constant_group_is_normalized_to_its_bias():
    """At any constant, such as 1000 / 3: no digit of it remains."""
    x = jnp.full((1, 4, 4, 8), 1000 / 3)
    np.testing.assert_allclose(normalized(x, jnp.ones(8), jnp.full(8, 0.5)), jnp.full_like(x, 0.5), atol=1e-6)


def test_the_group_norm_has_derivatives_of_both_modes_to_the_second_order(function, x64):
    """Those that are given, against differences."""
    x = 3 + jax.random.normal(jax.random.key(0), (2, 3, 2, 4))
    check_grads(jax.jit(function), (x, jnp.linspace(0.5, 2, 4), jnp.linspace(-1, 1, 4)), order=2, modes=("fwd", "rev"))


def test_the_gradient_of_swish_has_barriers_on_a_gpu_only():
    """Those of `_swish_in_two_passes_jvp`, in programs for devices that need not be here."""

    def barriers(platform):
        arguments = (jnp.ones((2, 8, 8, 16)), jnp.ones(16), jnp.ones(16))
        gradient = jax.jit(jax.grad(lambda *given: with_swish(*given).sum(), (0, 1, 2))).trace(*arguments)
        return gradient.lower(lowering_platforms=(platform,)).as_text().count("stablehlo.optimization_barrier")

    assert [barriers(platform) for platform in ("cpu", "tpu", "rocm", "cuda")] == [0, 0, 0, 2]


def test_the_gradient_of_swish_on_a_gpu_keeps_the_input_and_no_slope(monkeypatch):
    """Nothing of the size of the image that the gradient of the group norm alone does not keep."""

    def kept(function):
        x, scale = jnp.ones((2, 8, 8, 16)), jnp.ones(16)
        back = jax.vjp(lambda *given: function(*given), x, scale, scale)[1]
        return sum(each.size == x.size for each in jax.tree.leaves(back))

    assert kept(with_swish) > kept(normalized)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, cuda, default: cuda(*arguments))
    assert kept(with_swish) == kept(normalized)
