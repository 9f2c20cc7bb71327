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


def test_the_output_is_continuous_in_the_timestep():
    variables, x, index = variables_of(NETWORK, (4, 2))
    at = jax.jit(lambda index: NETWORK.apply(variables, x, index))
    np.testing.assert_allclose(at(index.astype(float)), at(index), rtol=1e-6)
    near, far = (float(jnp.abs(at(index + step) - at(index)).max()) for step in (1e-3, 0.5))
    assert near < 0.02 * far
