"""The fixed last step of 2015: at t = 1 only, whatever the network does there. The paper's laws: tests/experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, losses, parameterizations, schedules

KINDS = {
    "shrinking": lambda process: parameterizations.shrinking(process),
    "shifted": lambda process: parameterizations.shifted(process, 20),
}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def outputs(x_t):
    return jnp.concatenate([jnp.sin(3 * x_t), 0.1 * x_t], axis=-1)


@each_kind
def test_the_last_step_alone_is_fixed(make, x64):
    process = gaussian.process(schedules.linear(20, 0.01, 0.3, np.float64), gaussian.density)
    parameterization = make(process)
    fixed = parameterizations.fixed_last(process, parameterization)
    assert fixed.name == f"fixed_last({parameterization.name})"
    x_t = jnp.linspace(-2.0, 2.0, 4)[:, None]
    t, s = np.array([1, 2, 20, 20]), np.array([0, 0, 19, 0])
    kernel, free = (each.kernel(outputs(x_t), x_t, t, s) for each in (fixed, parameterization))
    last = process.transition(x_t, 0, 1)
    np.testing.assert_array_equal(kernel.mean[0], last.mean[0])
    np.testing.assert_array_equal(kernel.variance[0], jnp.broadcast_to(last.variance, x_t.shape)[0])
    for ours, theirs in zip(kernel, free, strict=True):
        np.testing.assert_array_equal(ours[1:], theirs[1:])


@each_kind
def test_at_real_times_the_estimate_is_that_of_the_network(make, x64):
    process = gaussian.process(schedules.linear(20, 0.01, 0.3, np.float64), gaussian.density)
    parameterization, x_t = make(process), jnp.linspace(-2.0, 2.0, 3)[:, None]
    t = np.array([2.0, 2.5, 19.25])
    estimate = parameterization.x_0(outputs(x_t), x_t, t)
    assert np.isfinite(estimate).all()
    np.testing.assert_array_equal(
        parameterizations.fixed_last(process, parameterization).x_0(outputs(x_t), x_t, t), estimate
    )


def test_between_1_and_2_the_network_is_evaluated_at_its_own_time(x64):
    """Not at 2, which stands for t = 1 alone."""
    process = gaussian.process(schedules.linear(20, 0.01, 0.3, np.float64), gaussian.density)
    eps, x_t = parameterizations.eps(process), jnp.linspace(-2.0, 2.0, 3)[:, None]
    found = parameterizations.fixed_last(process, eps).x_0(jnp.sin(x_t), x_t, 1.5)
    np.testing.assert_array_equal(found, eps.x_0(jnp.sin(x_t), x_t, 1.5))


@pytest.mark.parametrize("loss", [losses.negative_K, losses.variational])
@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_losses_have_finite_slopes_in_few_steps(loss, num_steps, family):
    """With T = 1 the fixed step is the only one, and no loss depends on the network."""
    betas = schedules.from_betas([0.3, 0.6][:num_steps])
    if family == "gaussian":
        process = gaussian.process(betas, gaussian.density)
        parameterization = parameterizations.fixed_last(process, parameterizations.shifted(process, num_steps))
    else:
        process = binomial.process(betas, 0.4)
        parameterization = parameterizations.fixed_last(process, parameterizations.logits(process))
    x_0 = jnp.asarray(np.arange(8)[:, None] % 2, jnp.float32)
    channels = 2 if family == "gaussian" else 1

    def mean(output):
        return loss(jax.random.key(0), process, parameterization, lambda *_: output, x_0).mean()

    value, slope = jax.jit(jax.value_and_grad(mean))(jnp.full((8, channels), 0.2))
    assert jnp.isfinite(value) and jnp.isfinite(slope).all()
    assert (jnp.abs(slope).max() > 0) == (num_steps > 1)
