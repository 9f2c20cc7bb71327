"""The perceptron: its output depends on the timestep, integer or real."""

import jax
import jax.numpy as jnp
import numpy as np
from networks.variables import apply, variables_of

from ddpm_jax.networks import MLP

NETWORK = MLP(width=16, depth=2)


def test_the_output_depends_on_the_timestep():
    variables, x, index = variables_of(NETWORK, (4, 2))
    assert jnp.abs(apply(NETWORK, variables, x, index) - apply(NETWORK, variables, x, index + 9)).max() > 1e-3


def test_in_bfloat16_the_last_layer_computes_in_float32():
    """The output is linear in its kernel to the digits of float32, of which bfloat16 has a third."""
    network = MLP(width=16, depth=2, dtype=jnp.bfloat16)
    variables, x, index = variables_of(network, (4, 2))
    params = variables["params"]
    last = params["dense_out"]

    def output(factor):
        scaled = last | {"kernel": factor * last["kernel"]}
        return apply(network, {"params": params | {"dense_out": scaled}}, x, index) - last["bias"][None]

    one, other = output(1.0), output(np.pi)
    np.testing.assert_allclose(other, np.pi * one, rtol=1e-4, atol=1e-5)


def test_the_output_is_continuous_in_the_timestep():
    variables, x, index = variables_of(NETWORK, (4, 2))
    at = jax.jit(lambda index: NETWORK.apply(variables, x, index))
    np.testing.assert_allclose(at(index.astype(float)), at(index), rtol=1e-6)
    near, far = (float(jnp.abs(at(index + step) - at(index)).max()) for step in (1e-3, 0.5))
    assert near < 0.02 * far
