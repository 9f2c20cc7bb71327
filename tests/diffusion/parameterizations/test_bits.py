"""Log odds of bits: exact also where one of the two probabilities is tiny."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, losses, parameterizations, schedules

ODDS = np.array([-80.0, -40.0, -18.0, -1.0, 0.0, 2.0, 18.0, 40.0, 80.0], np.float32)


def test_the_last_step_has_the_log_probability_of_either_bit():
    """-log(1 + exp(-output)) for a one, -log(1 + exp(output)) for a zero. 1 - sigmoid is 0 in float32 from 17 on."""
    process = binomial.process(schedules.steady(8), 0.3)
    parameterization = parameterizations.logits(process)
    for x_1 in (0.0, 1.0):
        kernel = parameterization.kernel(jnp.asarray(ODDS), jnp.full(len(ODDS), x_1), 1, 0)
        for bit, sign in ((1.0, 1), (0.0, -1)):
            expected = -np.logaddexp(0, -sign * ODDS.astype(np.float64))
            np.testing.assert_allclose(kernel.log_prob(jnp.full(len(ODDS), bit)), expected, rtol=1e-6, atol=6e-8)


def test_error_is_the_decoder_term_of_the_last_step():
    """The cross-entropy with x_0, at any output."""
    parameterization = parameterizations.logits(binomial.process(schedules.steady(8), 0.3))
    x_0 = jnp.asarray(np.arange(len(ODDS)) % 2, jnp.float32)
    kernel = parameterization.kernel(jnp.asarray(ODDS), jnp.zeros(len(ODDS)), 1, 0)
    error = parameterization.error(jnp.asarray(ODDS), x_0, jnp.zeros(len(ODDS)), 1)
    np.testing.assert_allclose(error, -kernel.log_prob(x_0), rtol=1e-6, atol=6e-8)


def test_a_longer_step_has_exact_probabilities_too():
    """q(x_s | x_t) of a bit that is one with probability sigmoid(output), against float64."""
    t, s = 7, 2
    outputs = np.array([18.0, 30.0, -30.0])

    def kernel(dtype):
        process = binomial.process(schedules.steady(2000, dtype), 0.5)
        output = jnp.asarray(outputs, dtype)
        return parameterizations.logits(process).kernel(output, jnp.zeros_like(output), t, s)

    single = [np.asarray(each, np.float64) for each in kernel(np.float32)]
    with jax.enable_x64(True):
        exact = [np.asarray(each) for each in kernel(np.float64)]
    np.testing.assert_allclose(single, exact, rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 8])
def test_the_bound_and_its_slopes_are_finite_at_large_outputs(num_steps):
    process = binomial.process(schedules.steady(num_steps), 0.3)
    parameterization = parameterizations.logits(process)
    x_0 = jnp.asarray(np.arange(64)[:, None] % 2, jnp.float32)

    def loss(output):
        return losses.variational(jax.random.key(0), process, parameterization, lambda *_: output, x_0).sum()

    for odds in (18.0, 50.0, 80.0):
        value, slope = jax.jit(jax.value_and_grad(loss))(jnp.full((64, 1), odds))
        assert jnp.isfinite(value) and jnp.isfinite(slope).all() and jnp.abs(slope).max() > 0.1
    assert (parameterization.name, parameterization.variance, parameterization.clip) == ("logits", None, None)
