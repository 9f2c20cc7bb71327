"""The networks of 2015 with one readout per timestep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks.variables import num_parameters

from ddpm_jax.networks import RadialBasis, SigmoidMLP


def test_each_timestep_has_a_readout_of_its_own():
    """The radial basis functions sum to one: a readout of ones gives ones at any point."""
    network = RadialBasis(num_steps=5, hidden=8)
    x, index = jnp.array([[0.3, -1.0], [7.0, 9.0]]), jnp.array([2, 2])
    params = network.init(jax.random.key(0), x, index)["params"]
    readout = {"kernel": params["readout"]["kernel"].at[2].set(1.0), "bias": params["readout"]["bias"].at[3].set(4.0)}
    variables = {"params": params | {"readout": readout}}
    np.testing.assert_allclose(network.apply(variables, x, index), 1.0, rtol=1e-6)
    np.testing.assert_allclose(network.apply(variables, x, index + 1), 4.0)
    np.testing.assert_allclose(network.apply(variables, x, index - 1), 0.0)


def test_parameter_count_of_the_paper():
    """2015, Appendix D.1.2: 20 inputs, three layers of 50, 2000 readouts."""
    assert num_parameters(SigmoidMLP(2000), (20,)) == 21 * 50 + 2 * 51 * 50 + 2000 * 51 * 20


@pytest.mark.parametrize("network", [RadialBasis(5), SigmoidMLP(5)], ids=["points", "bits"])
def test_a_real_index_is_refused(network):
    """A table has no entry between two timesteps."""
    variables = network.init(jax.random.key(0), jnp.zeros((2, 4)), jnp.array([0, 4]))
    with pytest.raises(
        ValueError, match="this network has one readout per timestep: t must be an integer, got float32"
    ):
        network.apply(variables, jnp.zeros((2, 4)), jnp.array([0.5, 3.0]))
