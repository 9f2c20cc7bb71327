"""The U-Net: parameter counts of the papers, invariances, conditioning."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from networks.variables import apply, num_parameters, variables_of

from ddpm_jax.networks import UNet
from ddpm_jax.networks.layers import GroupNorm

SMALL: dict[str, Any] = {
    "width": 8,
    "multipliers": (1, 2),
    "num_blocks": 1,
    "attention": (4,),
    "groups": 4,
    "dropout": 0.0,
}
SHAPE = (2, 8, 8, 1)
NICHOL: dict[str, Any] = {
    "multipliers": (1, 2, 3, 4),
    "num_blocks": 3,
    "attention": (16, 8),
    "heads": 4,
    "out_channels": 6,
    "scale_shift": True,
}
ADM: dict[str, Any] = {"width": 256, "head_dim": 64, "residual_resampling": True}


@pytest.mark.parametrize(
    "network, shape, count",
    [
        (UNet(), (32, 32, 3), 35_746_307),
        (UNet(out_channels=6), (32, 32, 3), 35_749_766),
        (UNet(), (32, 32, 1), 35_741_697),
        (UNet(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0), (256, 256, 3), 113_673_219),
        (UNet(width=192, multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0), (256, 256, 3), 255_677_955),
        (UNet(multipliers=(1, 2, 2, 2, 4)), (64, 64, 3), 78_700_803),
        (
            UNet(num_blocks=3, attention=(16, 8), heads=4, out_channels=6, scale_shift=True),
            (32, 32, 3),
            52_546_438,
        ),
        (UNet(**NICHOL), (64, 64, 3), 121_063_942),
        (UNet(**NICHOL | {"width": 192}, num_classes=1000, null_label=False), (64, 64, 3), 273_049_350),
        (
            UNet(multipliers=(1, 1, 2, 2, 4, 4), out_channels=6, dropout=0.0),
            (256, 256, 3),
            113_676_678,
        ),
        (
            UNet(**NICHOL | ADM | {"width": 192, "attention": (32, 16, 8)}, num_classes=1000, null_label=False),
            (64, 64, 3),
            295_904_454,
        ),
        (
            UNet(
                **NICHOL | ADM | {"multipliers": (0.5, 1, 1, 2, 2, 4, 4), "num_blocks": 2, "attention": (32, 16, 8)},
                num_classes=1000,
                null_label=False,
            ),
            (512, 512, 3),
            558_997_638,
        ),
    ],
)
def test_parameter_counts_of_the_papers(network, shape, count):
    """Ho et al. 2020, Appendix B (35.7M, 114M, 256M); Song et al. 2021, CelebA 64; Nichol & Dhariwal 2021: CIFAR-10,
    ImageNet-64 without and with labels, LSUN; Dhariwal & Nichol 2021, Table 11: ImageNet-64 (296M) and 512 (559M).

    Counted from the released code, or from shapes in PyTorch: see `tests/interop/openai_unet.py`.
    """
    assert num_parameters(network, shape) == count


def test_the_initial_output_is_almost_zero():
    network = UNet(**SMALL)
    x, index = jnp.ones((2, 8, 8, 1)), jnp.arange(2)
    variables = jax.jit(network.init)(jax.random.key(0), x, index)
    assert jnp.abs(apply(network, variables, x, index)).max() < 1e-3


@pytest.mark.parametrize("shape", [(1, 8, 12, 3), (1, 6, 4, 1)])
def test_non_square_images_and_any_channels(shape):
    variables, x, index = variables_of(UNet(**SMALL), shape)
    assert apply(UNet(**SMALL), variables, x, index).shape == shape


def test_the_output_of_an_example_is_independent_of_the_others():
    variables, x, index = variables_of(UNet(**SMALL), SHAPE)
    both = apply(UNet(**SMALL), variables, x, index)
    alone = apply(UNet(**SMALL), variables, x[1:], index[1:])
    np.testing.assert_allclose(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_output_depends_on_the_timestep_and_the_label():
    """Continuously on a real timestep; label num_classes is "no label"."""
    network = UNet(**SMALL, num_classes=3)
    variables, x, index = variables_of(network, SHAPE)
    at = jax.jit(lambda index, label: network.apply(variables, x, index, label))
    labelled = [at(index, jnp.full(2, label)) for label in range(4)]
    assert all(jnp.abs(labelled[0] - other).max() > 1e-3 for other in labelled[1:])
    np.testing.assert_array_equal(labelled[3], at(index, None))
    real = [at(index + step, jnp.full(2, 3)) for step in (0.0, 1e-3, 0.5, 1.0)]
    np.testing.assert_allclose(real[0], labelled[3], rtol=1e-5, atol=1e-5)
    moved = [float(jnp.abs(output - real[0]).max()) for output in real]
    assert moved[1] < 0.02 * moved[2] and moved[3] > 1e-3


def test_without_an_embedding_for_no_label_there_must_be_a_label():
    network, embedding = UNet(**SMALL, num_classes=3, null_label=False), ("params", "time", "label", "embedding")
    variables, x, index = variables_of(network, SHAPE)
    table = variables
    for name in embedding:
        table = table[name]
    assert table.shape[0] == 3
    with pytest.raises(ValueError, match="give a label"):
        apply(network, variables, x, index)
    assert np.isnan(apply(network, variables, x, index, jnp.full(2, 3))).all()


def test_rematerialization_changes_neither_values_nor_gradients():
    flat = {**SMALL, "multipliers": (1,), "attention": (8,)}
    variables, x, index = variables_of(UNet(**flat), SHAPE)

    def loss(variables, remat):
        return jnp.square(UNet(**flat, remat=remat).apply(variables, x, index)).mean()

    plain, again = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(variables, remat) for remat in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), plain, again)


def test_bfloat16_is_near_float32_with_float32_parameters():
    variables, x, index = variables_of(UNet(**SMALL), SHAPE)
    half = UNet(**SMALL, dtype=jnp.bfloat16)
    stored = jax.eval_shape(half.init, jax.random.key(0), x, index)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype("float32")}
    exact, rough = apply(UNet(**SMALL), variables, x, index), apply(half, variables, x, index)
    assert rough.dtype == jnp.float32 and not np.array_equal(exact, rough)
    assert jnp.linalg.norm(rough - exact) < 0.05 * jnp.linalg.norm(exact)


def test_the_last_three_layers_compute_in_float32():
    """In bfloat16 they are, to the last digits, the float32 layers applied to the output of the last block."""
    network = UNet(**SMALL, dtype=jnp.bfloat16)
    variables, x, index = variables_of(network, SHAPE)
    captured = partial(network.apply, capture_intermediates=lambda module, _: module.name == "up_0_1", mutable=True)
    # XLA may otherwise compute what is rounded to bfloat16 in float32
    exact = jax.jit(captured, compiler_options={"xla_allow_excess_precision": False})
    output, kept = exact(variables, x, index)
    (block,) = kept["intermediates"]["up_0_1"]["__call__"]
    norm, conv = (variables["params"][name] for name in ("norm_out", "conv_out"))
    h = nn.swish(GroupNorm(SMALL["groups"], jnp.float32).apply({"params": norm}, block))
    expected = nn.Conv(SHAPE[-1], (3, 3)).apply({"params": conv}, h)
    assert block.dtype == jnp.bfloat16 and output.dtype == jnp.float32
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_heads_divide_the_channels_but_not_the_parameters():
    one, two = UNet(**SMALL), UNet(**SMALL, heads=2)
    variables, x, index = variables_of(one, SHAPE)
    assert jnp.abs(apply(one, variables, x, index) - apply(two, variables, x, index)).max() > 1e-6


def test_dropout_acts_in_training_only():
    network = UNet(**{**SMALL, "dropout": 0.5})
    variables, x, index = variables_of(network, SHAPE)
    without = apply(network, variables, x, index)
    dropped = apply(network, variables, x, index, train=True, rngs={"dropout": jax.random.key(2)})
    np.testing.assert_array_equal(without, apply(UNet(**SMALL), variables, x, index))
    assert jnp.abs(dropped - without).max() > 1e-3


@pytest.mark.parametrize(
    "network, shape, message",
    [
        (UNet(), (1, 28, 28, 1), "28x28 .*multiple of 8"),
        (UNet(width=40), (1, 32, 32, 3), "40 channels .*groups=32"),
        (UNet(heads=3), (1, 32, 32, 3), "256 channels .*heads=3"),
        (UNet(head_dim=7), (1, 32, 32, 3), "256 channels .*heads of head_dim=7"),
        (UNet(width=0), (1, 32, 32, 3), "width must be at least 1"),
        (UNet(dropout=1.0), (1, 32, 32, 3), r"dropout in \[0, 1\)"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(network, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros((1,), jnp.int32))
