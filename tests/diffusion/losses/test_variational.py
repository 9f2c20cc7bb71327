"""Single terms of the variational bound, as a training loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys

from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.diffusion.parameterizations import fixed_large, fixed_small


@pytest.mark.parametrize("variance", [fixed_small, fixed_large])
def test_single_terms_of_the_bound_add_up_to_it(variance):
    """T times the mean of `variational` is the chain and the decoder of `bound`, in bits."""
    process = gaussian.process(schedules.linear(8, 0.02, 0.4))
    parameterization = parameterizations.eps(process, variance)
    x_0 = jnp.round(8 * jax.random.uniform(jax.random.key(1), (20_000, 2))) / 4 - 1

    def network(x_t, t, condition):
        return 0.3 * x_t + 0.1 * condition

    condition = jnp.ones((20_000, 1))
    one = jax.jit(lambda key: losses.variational(key, process, parameterization, network, x_0, condition))(
        jax.random.key(2)
    )
    whole = jax.jit(lambda: losses.bound(keys(20_000), process, parameterization, network, x_0, condition))()
    expected = (whole.chain.sum(axis=1) + whole.decoder) / (2 * np.log(2))
    error = np.hypot(8 * one.std(), expected.std()) / np.sqrt(20_000)
    assert abs(8 * one.mean() - expected.mean()) < 3 * error
    assert error < 0.05 * expected.mean()


def test_the_variance_of_data_at_a_point_is_learned_from_single_terms():
    """There the posterior's own variance is the best (Ho et al. 2020, Section 3.2): descent from afar finds it."""
    schedule = schedules.linear(4, 0.1, 0.4)
    process = gaussian.process(schedule, gaussian.density)
    parameterization = parameterizations.learned(process, parameterizations.x0(process))
    x_0 = jnp.full((2000, 1), 0.3)

    def loss(log_variance, key):
        def network(x_t, t, condition):
            return jnp.concatenate([jnp.full_like(x_t, 0.3), log_variance[t - 1][:, None]], axis=1)

        return losses.variational(key, process, parameterization, network, x_0).mean()

    def descend(log_variance, key):
        gradient = jax.grad(loss)(log_variance, key).at[0].set(0.0)  # at t = 1 the likelihood grows without end
        return log_variance - 2.0 * gradient, None

    learned, _ = jax.jit(lambda start: jax.lax.scan(descend, start, keys(100)))(jnp.zeros(4))
    best = [float(gaussian.posterior_variance(schedule, t, t - 1, 0)) for t in (2, 3, 4)]
    np.testing.assert_allclose(np.exp(learned[1:]), best, rtol=0.02)


def test_the_bound_trains_the_unclipped_parameterization():
    """Clipping has no gradient where x_0 lies outside the range of the data."""
    process = gaussian.process(schedules.linear(10, 0.01, 0.3))
    plain = parameterizations.eps(process)
    clipped = parameterizations.clipped(process, plain)

    def loss(scale, parameterization):
        def network(x_t, t, condition):
            return scale * x_t

        x_0 = jnp.ones((64, 2))
        return losses.variational(jax.random.key(0), process, parameterization, network, x_0).mean()

    ours, theirs = (jax.jit(jax.value_and_grad(loss))(-9.0, one) for one in (clipped, plain))
    assert ours == theirs and theirs[1] != 0


def test_of_a_single_step_the_loss_is_the_decoder_term():
    """With T = 1 there is no posterior at t = 2: the value is that of the likelihood, and its slope is finite."""
    process = gaussian.process(schedules.from_betas([0.4]))
    parameterization = parameterizations.mean(process)
    x_0 = jnp.round(8 * jax.random.uniform(jax.random.key(1), (4000, 2))) / 4 - 1

    @jax.jit
    def losses_of(scale):
        network = lambda x_t, t, condition: scale * jnp.sin(x_t)  # noqa: E731
        single = losses.variational(jax.random.key(0), process, parameterization, network, x_0)
        return single, losses.bound(keys(4000), process, parameterization, network, x_0)

    single, bound = losses_of(0.3)
    assert bound.chain.shape == (4000, 0)
    difference = single - bound.decoder / (2 * np.log(2))
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(4000)
    slope = jax.grad(lambda scale: losses_of(scale)[0].mean())(0.3)
    assert slope != 0
    np.testing.assert_allclose(slope, (losses_of(0.31)[0].mean() - losses_of(0.29)[0].mean()) / 0.02, rtol=1e-2)


def test_hybrid_is_simple_for_the_mean_and_the_bound_for_the_variance():
    """Its value is the sum of both; the first half of the channels has the gradient of one, the second of the other."""
    process = gaussian.process(schedules.cosine(50))
    parameterization = parameterizations.learned_range(process, parameterizations.eps(process))
    x_0 = jnp.round(8 * jax.random.uniform(jax.random.key(1), (64, 2))) / 4 - 1

    def value(loss, slopes):
        network = lambda x_t, t, condition: jnp.concatenate([slopes[0] * x_t, slopes[1] + 0.1 * x_t], axis=-1)  # noqa: E731
        return loss(jax.random.key(0), process, parameterization, network, x_0).mean()

    slopes = jnp.array([0.4, -0.3])
    (hybrid, of_hybrid), (simple, of_simple), (term, of_term) = (
        jax.jit(jax.value_and_grad(lambda slopes, loss=loss: value(loss, slopes)))(slopes)
        for loss in (losses.hybrid, losses.simple, losses.variational)
    )
    assert hybrid == pytest.approx(float(simple + 0.05 * term), rel=1e-5)
    np.testing.assert_allclose(of_hybrid, [of_simple[0], 0.05 * of_term[1]], rtol=1e-4)
    assert abs(of_term[0]) > 0.1 and of_simple[1] == 0


def test_hybrid_refuses_an_output_without_a_variance():
    process = gaussian.process(schedules.linear(20))
    with pytest.raises(ValueError, match="L_hybrid needs 4 output channels, the network has 2"):
        losses.hybrid(jax.random.key(0), process, parameterizations.eps(process), lambda x, t, c: x, jnp.ones((3, 2)))
