"""The mathematics of Sohl-Dickstein et al. 2015: its parameterizations, its bound as a loss, and its entropies."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, losses, parameterizations, samplers, schedules

STEPS = 50


def rising_process() -> gaussian.Process:
    """The betas of the released code, 1 / (T, .., 2), in float64."""
    return gaussian.process(schedules.from_betas(1 / np.linspace(STEPS, 2, STEPS), np.float64), gaussian.density)


def paper_2015(process, name: str):
    """The parameterization of this name, with the fixed last step."""
    kinds = {
        "shifted": lambda: parameterizations.shifted(process, STEPS),
        "shrinking": lambda: parameterizations.shrinking(process),
    }
    return parameterizations.fixed_last(process, kinds[name]())


def zeros(x_t, t, condition):
    return jnp.zeros((*x_t.shape[:-1], 2 * x_t.shape[-1]))


def test_the_gradient_of_the_loss_is_taken_at_fixed_noise(x64):
    """It is the slope of the loss in the betas, by differences with the same noise at both ends."""
    schedule = lambda logit: schedules.from_traced_betas(jax.nn.sigmoid(jnp.linspace(-5.0, 0.0, 6) + logit))  # noqa: E731
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)))

    @jax.jit
    def loss(logit):
        process = gaussian.process(schedule(logit), gaussian.density)
        network = lambda x_t, t, condition: jnp.concatenate([jnp.sin(x_t), 0.1 * x_t], axis=-1)  # noqa: E731
        parameterization = paper_2015(process, "shrinking")
        return losses.negative_K(jax.random.key(0), process, parameterization, network, x_0).mean()

    slope = (loss(0.3 + 1e-6) - loss(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.3), slope, rtol=1e-6)


@pytest.mark.parametrize("name", ["shifted", "shrinking"])
def test_a_network_of_zeros_is_exact_for_data_of_unit_variance(x64, name):
    """K = -H(data): each step shrinks as the forward step does, and all divergences vanish."""
    process, entropy = rising_process(), 0.5 * np.log(2 * np.pi * np.e)
    parameterization = paper_2015(process, name)
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 1)))
    bound = jax.jit(lambda keys: losses.bound(keys, process, parameterization, zeros, x_0))
    K = bound(jax.random.split(jax.random.key(0), 4000)).K()
    assert abs(float(K.mean()) + entropy) < 3 * float(K.std()) / np.sqrt(4000)
    # the loss estimates it by one term without bias
    one = losses.negative_K(jax.random.key(1), process, parameterization, zeros, x_0) * np.log(2)
    assert abs(float(one.mean()) - entropy) < 4 * float(one.std()) / np.sqrt(4000)


def test_one_t_for_a_batch_has_the_mean_of_stratified_t(x64):
    """Both estimate the same K, the one from one t a batch with a larger variance."""
    process = rising_process()
    parameterization = paper_2015(process, "shifted")
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(50, 1)))

    def network(x_t, t, condition):
        return jnp.concatenate([0.3 * x_t, jnp.zeros_like(x_t)], axis=-1)

    @partial(jax.jit, static_argnums=0)
    def estimates(draw):
        def one(key):
            return losses.negative_K(key, process, parameterization, network, x_0, draw=draw).mean()

        return jax.lax.map(one, jax.random.split(jax.random.key(1), 2000))

    stratified, shared = estimates(None), estimates(losses.shared)
    assert shared.std() > 2 * stratified.std()
    assert abs(shared.mean() - stratified.mean()) < 4 * shared.std() / np.sqrt(2000)


@pytest.mark.parametrize("name", ["shifted", "shrinking"])
def test_samples_of_a_network_of_zeros_keep_unit_variance(x64, name):
    process = rising_process()
    sampler = samplers.ddpm(process, paper_2015(process, name), zeros)
    x_T = jax.random.normal(jax.random.key(3), (4000, 1))
    keys = jax.random.split(jax.random.key(2), 4000)
    samples = samplers.sample(keys, sampler, x_T, samplers.times(STEPS, STEPS))
    # less beta_1 = 1 / 50, since the step to the data adds no noise
    assert float(samples.var()) == pytest.approx(0.98, abs=0.07)


def test_without_the_root_as_the_paper_prints_it_variance_is_lost(x64):
    process = gaussian.process(schedules.constant(200, 0.1, np.float64), gaussian.density)
    variances = []
    for printed in (False, True):
        sampler = samplers.ddpm(process, parameterizations.shrinking(process, printed), zeros)
        x_T = jax.random.normal(jax.random.key(3), (2000, 1))
        x = samplers.sample(jax.random.split(jax.random.key(2), 2000), sampler, x_T, samplers.times(200, 200))
        variances.append(float(x.var()))
    assert variances[0] > 0.8 and variances[1] < 0.6


# 2015, Eq. 64, sigmoid(z + logit(beta)), by hand
@pytest.mark.parametrize("shift, beta, expected", [(1.0, 0.01, 0.0267236310), (-2.0, 0.3, 0.0548211624)])
def test_the_variance_is_that_of_the_paper(x64, shift, beta, expected):
    process = gaussian.process(schedules.constant(3, beta, np.float64), gaussian.density)
    output = jnp.array([[0.0, shift]])
    kernel = parameterizations.shrinking(process).kernel(output, jnp.ones((1, 1)), 2, 1)
    np.testing.assert_allclose(kernel.variance, expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["shifted", "shrinking"])
def test_longer_steps_have_the_posterior_mean_of_the_estimate_of_x_0(x64, name):
    """For any output, and for steps to the data too; each example of a batch has the kernel of its own times."""
    process = rising_process()
    parameterization, x_t = paper_2015(process, name), jnp.linspace(-2.0, 2.0, 7)[:, None]
    output = jnp.concatenate([jnp.sin(3 * x_t), 0.1 * x_t], axis=-1)
    for t, s in ((40, 39), (40, 20), (40, 0), (2, 0)):
        kernel = parameterization.kernel(output, x_t, t, s)
        expected = process.posterior(x_t, parameterization.x_0(output, x_t, t), t, s).mode()
        np.testing.assert_allclose(kernel.mean, expected, rtol=1e-6, atol=1e-9)
    t, s = jnp.array([1, 2, 2, 9, 9, 50, 50]), jnp.array([0, 1, 0, 8, 3, 0, 49])
    together = parameterization.kernel(output, x_t, t, s)
    alone = parameterization.kernel(output[3:5], x_t[3:5], t[3:5], s[3:5])
    np.testing.assert_allclose(together.mean[3:5], alone.mean)


def test_a_point_is_sampled_exactly_unless_the_fixed_step_is_taken(x64):
    """Data at 0 only: the fixed step from x_1 is the only one that leaves noise, and longer steps are not fixed."""
    process = rising_process()
    parameterization = parameterizations.fixed_last(process, parameterizations.x0(process))
    sampler = samplers.ddpm(process, parameterization, lambda x_t, t, condition: jnp.zeros_like(x_t))
    x_T = jax.random.normal(jax.random.key(3), (50, 1))
    keys = jax.random.split(jax.random.key(2), 50)
    assert np.abs(samplers.sample(keys, sampler, x_T, samplers.times(STEPS, 10))).max() == 0
    assert 0 < np.abs(samplers.sample(keys, sampler, x_T, samplers.times(STEPS, STEPS))).max() < 1


def test_the_estimate_of_x_0_at_the_fixed_step_ignores_the_network(x64):
    """The network is never trained at t = 1: x_0 is the mean of the fixed step."""
    process = binomial.process(schedules.steady(10, np.float64), 0.2)
    parameterization = parameterizations.fixed_last(process, parameterizations.logits(process))
    x_1 = jnp.array([[0.0, 1.0]])
    expected = process.transition(x_1, 0, 1).one
    for output in (-5.0, 0.0, 5.0):
        np.testing.assert_allclose(parameterization.x_0(jnp.full((1, 2), output), x_1, 1), expected)


def test_entropy_bounds_of_gaussian_data(x64):
    """2015, Eq. 24, for N(0, 1/4) and the linear schedule: (t, lower, exact, upper) in nats, by an independent script.

    The exact entropy is that of x_{t-1} given x_t, whose variance has two parts: that of the posterior, and that of x_0
    given x_t.
    """
    process = gaussian.process(schedules.linear(1000, dtype=np.float64), gaussian.density)
    for t, lower, exact, upper in [
        (2, -3.489424034, -3.095584428, -3.095404653),
        (10, -2.752299144, -2.673126656, -2.672710605),
        (100, -1.679790406, -1.672803525, -1.670664552),
    ]:
        bounds = losses.entropy_bounds(jax.random.key(0), process, jnp.zeros((1, 1)), t)
        np.testing.assert_allclose([float(each[0, 0]) for each in bounds], [lower, upper], atol=1e-8)
        alpha_bar, one_minus = process.schedule.at(t, 0)
        unknown = 0.25 * one_minus / (0.25 * alpha_bar + one_minus)
        step = process.posterior(jnp.zeros(1), jnp.ones(1), t, t - 1)
        variance = gaussian.posterior_variance(process.schedule, t, t - 1, 0) + step.mean[0] ** 2 * unknown
        np.testing.assert_allclose(0.5 * jnp.log(2 * jnp.pi * jnp.e * variance), exact, atol=1e-8)
        assert bounds[0][0, 0] < exact < bounds[1][0, 0]
