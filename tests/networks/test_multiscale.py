"""The network of 2015 for images: its temporal basis and its convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from networks.variables import apply, variables_of

from ddpm_jax.networks import MultiScale
from ddpm_jax.networks.multiscale import MultiScaleConv, TemporalReadout, temporal_basis


# ten bumps over 1000 steps, half a spacing wide, as in the released code: (row, values), by an independent script
@pytest.mark.parametrize(
    "index, expected",
    [(0, [0.880537, 0.119168, 0.000295]), (111, [0.106479, 0.786778, 0.106479, 0.000264])],
)
def test_the_temporal_basis_is_that_of_the_released_code(index, expected):
    row = np.asarray(temporal_basis(jnp.array([index]), 1000, 10, width=0.5))[0]
    np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-6)
    assert row.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("log_time", [False, True])
def test_the_basis_of_a_single_step_is_that_of_the_first_of_many(log_time):
    one, many = (temporal_basis(jnp.array([0]), num_steps, 4, log_time=log_time) for num_steps in (1, 100))
    np.testing.assert_array_equal(one, many)


def test_the_temporal_basis_at_real_indices_is_that_of_a_finer_schedule():
    """It depends on index / (T - 1) only: halves of 11 steps are integers of 21."""
    fine = temporal_basis(jnp.arange(21), 21, 5)
    np.testing.assert_allclose(temporal_basis(jnp.arange(21) / 2, 11, 5), fine, rtol=1e-5)


def test_bumps_even_in_log_time_have_their_centres_at_the_powers_of_T():
    """T = 1000 and four bumps: t = 1, 10, 100, 1000, so the bumps at each power are those at the one before, moved."""
    rows = np.asarray(temporal_basis(jnp.array([0, 9, 99, 999]), 1000, 4, 0.3, log_time=True))
    assert rows.argmax(axis=1).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[1, :3], rows[2, 1:], rtol=1e-4)


def test_the_readout_is_the_sum_over_the_bumps_that_the_paper_writes():
    """The kernel is summed over the bumps before the pixels; the paper multiplies each pixel's coefficients by them."""
    h, bumps = jax.random.normal(jax.random.key(0), (2, 3, 5, 7)), temporal_basis(jnp.array([3, 8]), 11, 4)
    layer = TemporalReadout(2)
    zeros = layer.init(jax.random.key(1), h, bumps)
    kernel, bias = jax.random.normal(jax.random.key(2), (7, 8)), jax.random.normal(jax.random.key(3), (8,))
    assert jax.tree.map(jnp.shape, zeros) == {"params": {"kernel": (7, 8), "bias": (8,)}}
    coefficients = (h @ kernel + bias[None, None, None]).reshape(2, 3, 5, 2, 4)
    expected = (coefficients * bumps[:, None, None, None, :]).sum(axis=-1)
    given = layer.apply({"params": {"kernel": kernel, "bias": bias}}, h, bumps)
    np.testing.assert_allclose(given, expected, rtol=1e-4, atol=1e-5)


def test_the_pixel_itself_reaches_its_head_only_as_pixel_input():
    """With constant features of the dense pathway, nothing else makes the output of a pixel depend on that pixel."""
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2].set(1.0)
    for pixel_input in (False, True):
        network = MultiScale(10, conv_layers=0, dense_hidden=8, basis=4, pixel_input=pixel_input)
        variables, _, _ = variables_of(network, x.shape)
        params = variables["params"]
        params["dense_out"] = jax.tree.map(jnp.zeros_like, params["dense_out"])
        output = apply(network, variables, x, jnp.array([3]))
        differs = jnp.abs(output - output[:, :1, :1]).max(axis=(0, 3)) > 1e-6
        assert differs.sum() == pixel_input and differs[1, 2] == pixel_input


def test_a_network_of_a_temporal_basis_takes_real_indices():
    network = MultiScale(11, conv_features=3, scales=2, dense_hidden=8, basis=4)
    variables, x, _ = variables_of(network, (3, 4, 4, 1))
    index = jnp.array([0, 4, 9])
    halves = apply(network, variables, x, index + 0.5)
    finer = MultiScale(21, conv_features=3, scales=2, dense_hidden=8, basis=4)
    np.testing.assert_allclose(halves, apply(finer, variables, x, 2 * index + 1), rtol=1e-4, atol=1e-5)
    assert jnp.abs(halves - apply(network, variables, x, index)).max() > 1e-3


def test_a_constant_image_stays_constant_inside_at_all_scales():
    """Averages of a constant are the constant: away from the border, each scale gives its kernel's sum times it."""
    layer = MultiScaleConv(features=3, scales=3, activation=lambda x: x)
    x = jnp.full((1, 24, 24, 2), 0.7)
    out, params = layer.init_with_output(jax.random.key(0), x)
    inside = out[0, 8:16, 8:16]
    np.testing.assert_allclose(inside, jnp.broadcast_to(inside[0, 0], inside.shape), atol=1e-5)
    np.testing.assert_allclose(inside[0, 0], sum(responses(params, (1, 2, 4))), atol=1e-5)


def test_biases_of_one_value_are_a_tied_bias_and_each_is_that_of_its_pixel():
    """A scale of twice the pixel size has a bias for each of its squares."""
    tied, untied = (
        MultiScaleConv(features=3, scales=2, activation=lambda y: y, untied_biases=b) for b in (False, True)
    )
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    params = untied.init(jax.random.key(1), x)["params"]
    kernels = {name: each for name, each in params.items() if name.startswith("conv")}
    biases = {"bias_1": jnp.full((4, 4, 3), 0.3), "bias_2": jnp.full((2, 2, 3), -0.1)}
    same = {name: each | {"bias": jnp.full(3, 0.3 if name == "conv_1" else -0.1)} for name, each in kernels.items()}
    expected = tied.apply({"params": same}, x)
    np.testing.assert_allclose(untied.apply({"params": kernels | biases}, x), expected, atol=1e-6)
    moved = kernels | biases | {"bias_2": biases["bias_2"].at[0, 1, 2].add(1.0)}
    change = untied.apply({"params": moved}, x) - expected
    np.testing.assert_allclose(change[:, :2, 2:, 2], 1, atol=1e-6)
    assert np.abs(change).sum() == pytest.approx(2 * 4, abs=1e-4)


def responses(params, sizes):
    """The response of each scale's convolution to the constant 0.7, away from the border."""
    return [jnp.full(2, 0.7) @ params["params"][f"conv_{size}"]["kernel"].sum(axis=(0, 1)) for size in sizes]


@pytest.mark.parametrize("side, sizes", [(24, (1, 2, 4)), (18, (1, 2)), (21, (1,))])
def test_averaged_scales_are_the_mean_of_the_activations_of_the_scales_that_divide_the_image(side, sizes):
    layer = MultiScaleConv(features=3, scales=3, activation=nn.softplus, average_scales=True)
    x = jnp.full((1, side, side, 2), 0.7)
    out, params = layer.init_with_output(jax.random.key(0), x)
    assert set(params["params"]) == {f"conv_{size}" for size in sizes}
    expected = np.mean([nn.softplus(response) for response in responses(params, sizes)], axis=0)
    np.testing.assert_allclose(out[0, side // 2, side // 2], expected, atol=1e-5)


@pytest.mark.parametrize(
    "field, message",
    [
        ({"scales": 0}, "scales must be at least 1, got 0"),
        ({"upper_layers": 0}, "upper_layers must be at least 1 and basis at least 2, got 0 and 10"),
        ({"basis": 1}, "upper_layers must be at least 1 and basis at least 2, got 2 and 1"),
        ({"conv_layers": 0, "dense_layers": 0}, "no pathway: conv_layers or dense_layers"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(field, message):
    network = MultiScale(10, **field)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.zeros(1, jnp.int32))
