"""Classifier guidance on a mixture of Gaussians, where the network of each class and the classifier are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import keys

from ddpm_jax.diffusion import binomial, gaussian, guidance, losses, parameterizations, samplers, schedules

PROCESS = gaussian.process(schedules.linear(200, 1e-3, 0.1), gaussian.density)
MEANS = np.array([[-0.6, 0.2], [0.5, 0.1], [0.0, -0.7]], np.float32)
VARIANCE = 0.04
KINDS = {name: getattr(parameterizations, name) for name in ("eps", "x0", "v", "mean")}


def marginals(x_t, t):
    """(log q(x_t | class), E[x_0 | x_t, class]) of each class, [batch, classes] and [batch, classes, 2]."""
    alpha_bar, one_minus = PROCESS.schedule.at(t, 3)
    total, signal = alpha_bar * VARIANCE + one_minus, jnp.sqrt(alpha_bar)
    away = x_t[:, None] - signal * jnp.asarray(MEANS)[None]
    return -(away**2 / (2 * total)).sum(axis=-1), jnp.asarray(MEANS)[None] + signal * VARIANCE / total * away


def classifier(x_t, t, label):
    """The true log p(label | x_t)."""
    return guidance.labelled(lambda x_t, t, condition: marginals(x_t, t)[0])(x_t, t, label)


def best(kind, of_class=False):
    """The best network of a parameterization for the mixture, or for each class alone."""

    def network(x_t, t, condition):
        logs, x_0 = marginals(x_t, t)
        share = jax.nn.one_hot(condition, 3) if of_class else jax.nn.softmax(logs)
        return output_for(kind, (share[:, :, None] * x_0).sum(axis=1), x_t, t)

    return network


def output_for(kind, x_0, x_t, t):
    """The output whose x_0 this is: x_0 is affine in it."""
    made = KINDS[kind](PROCESS)
    at_0, at_1 = (made.x_0(jnp.full_like(x_t, n), x_t, t) for n in (0.0, 1.0))
    return (x_0 - at_0) / (at_1 - at_0)


X, LABEL = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)), jnp.arange(6) // 2
TIMES = jnp.array([1, 60, 200, 10, 150, 100])
"""Of each example, and its class."""


@pytest.mark.parametrize("kind", KINDS)
def test_with_the_true_classifier_the_network_becomes_that_of_the_class(kind):
    shifted = guidance.classifier_shift(best(kind), PROCESS, KINDS[kind](PROCESS), classifier)
    found, expected = (jax.jit(each)(X, TIMES, LABEL) for each in (shifted, best(kind, of_class=True)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(expected - jax.jit(best(kind))(X, TIMES, LABEL)).max() > 0.02


def test_the_shift_is_proportional_to_a_scale_that_may_depend_on_example_and_time():
    @partial(jax.jit, static_argnums=0)
    def shift(scale, times=TIMES):
        wrapped = guidance.classifier_shift(best("eps"), PROCESS, KINDS["eps"](PROCESS), classifier, scale)
        return wrapped(X, times, LABEL) - best("eps")(X, times, LABEL)

    times, once = TIMES, shift(1.0)
    np.testing.assert_allclose(shift(lambda t: jnp.arange(6.0)), jnp.arange(6.0)[:, None] * once, atol=1e-5)
    within = guidance.limited(3.0, PROCESS, 0.2, 2.0, outside=0.0)
    level = np.sqrt(1 / np.asarray(schedules.signal_to_noise(PROCESS.schedule, times)))
    inside = (level > 0.2) & (level <= 2.0)
    assert 0 < inside.sum() < 6
    np.testing.assert_allclose(shift(within), 3.0 * inside[:, None] * once, atol=1e-5)


def test_a_learned_variance_and_clipping_remain():
    eps = parameterizations.clipped(PROCESS, parameterizations.learned(PROCESS, KINDS["eps"](PROCESS)))

    def doubled(x_t, t, condition):
        return jnp.concatenate([best("eps")(x_t, t, condition), x_t], axis=-1)

    plain = guidance.classifier_shift(best("eps"), PROCESS, KINDS["eps"](PROCESS), classifier)
    output = guidance.classifier_shift(doubled, PROCESS, eps, classifier)
    plain, output = (jax.jit(each)(X, 60, LABEL) for each in (plain, output))
    np.testing.assert_allclose(output, jnp.concatenate([plain, X], axis=-1), atol=1e-5)


def test_x_0_moves_by_the_gradient_where_its_slope_depends_on_the_variance():
    """`shrinking` of 2015: the estimate of x_0 depends on both halves of the output (Tweedie's formula)."""
    shrinking = parameterizations.shrinking(PROCESS)
    output = jnp.concatenate([X, 0.3 * X], axis=-1)
    t = jnp.asarray(60)
    shifted = guidance.classifier_shift(lambda *_: output, PROCESS, shrinking, classifier)(X, t, LABEL)
    moved = shrinking.x_0(shifted, X, t) - shrinking.x_0(output, X, t)
    alpha_bar, one_minus = PROCESS.schedule.at(t, 2)
    gradient = jax.grad(lambda x: classifier(x, t, LABEL).sum())(X)
    np.testing.assert_allclose(moved, one_minus / jnp.sqrt(alpha_bar) * gradient, rtol=1e-2, atol=1e-4)


NUM = 3000
SAMPLERS = {
    "mean of the step": lambda network, label: samplers.ancestral(
        guidance.tilted(
            samplers.reverse(KINDS["eps"](PROCESS, parameterizations.fixed_large), network),
            guidance.class_gradient(classifier, label),
        )
    ),
    "ddim": lambda network, label: samplers.ddim(
        PROCESS,
        KINDS["eps"](PROCESS),
        guidance.classifier_shift(network, PROCESS, KINDS["eps"](PROCESS), classifier),
        label,
    ),
    "classifier-free": lambda network, label: samplers.ddim(
        PROCESS,
        KINDS["eps"](PROCESS),
        guidance.classifier_free(with_no_class, jnp.float32(1), null=3),
        label,
    ),
}


def with_no_class(x_t, t, condition):
    """The network of each class, and of the mixture for label 3."""
    return jnp.where(condition[:, None] == 3, best("eps")(x_t, t, None), best("eps", True)(x_t, t, condition))


@pytest.mark.parametrize("name", SAMPLERS)
def test_scale_1_gives_the_distribution_of_the_class(name):
    """From a network of the mixture. In mean and variance, within four standard errors and the error of 200 steps."""

    @jax.jit
    def draw(x_T, label):
        return samplers.sample(keys(NUM), SAMPLERS[name](best("eps"), label), x_T, samplers.times(200, 200))

    x_T = jax.random.normal(jax.random.key(7), (NUM, 2))
    x_0 = np.asarray(draw(x_T, jnp.full(NUM, 1)))
    np.testing.assert_allclose(x_0.mean(axis=0), MEANS[1], atol=0.02 + 4 * np.sqrt(VARIANCE / NUM))
    np.testing.assert_allclose(x_0.var(axis=0), VARIANCE, rtol=0.06 + 4 * np.sqrt(2 / NUM))
    assert abs(np.cov(x_0.T)[0, 1]) < 0.004


def test_the_true_classifier_has_the_least_loss():
    """Cross-entropy is least for the truth; without any classes to choose from x_T alone it is log 3."""
    x_0 = jnp.asarray(MEANS)[jnp.arange(6000) % 3] + 0.2 * jax.random.normal(jax.random.key(0), (6000, 2))

    def loss(temper):
        network = lambda x_t, t, condition: temper * marginals(x_t, t)[0]  # noqa: E731
        return losses.classification(
            jax.random.key(1), PROCESS, guidance.labelled(network), x_0, jnp.arange(6000) % 3
        ).mean()

    less, true, more, none = (float(jax.jit(loss)(temper)) for temper in (0.7, 1.0, 1.4, 0.0))
    assert true < less < none and true < more
    np.testing.assert_allclose(none, np.log(3), rtol=1e-5)


def test_what_classifier_guidance_cannot_do():
    bits = binomial.process(schedules.steady(5), 0.5)
    with pytest.raises(ValueError, match="classifier guidance needs a Gaussian process"):
        guidance.classifier_shift(best("eps"), bits, parameterizations.logits(bits), classifier)
    with pytest.raises(ValueError, match="a label for each example"):
        guidance.classifier_shift(best("eps"), PROCESS, KINDS["eps"](PROCESS), classifier)(X, 60, None)


def test_an_example_does_not_depend_on_the_others():
    guided = jax.jit(guidance.classifier_shift(best("eps"), PROCESS, KINDS["eps"](PROCESS), classifier, 2.0))
    moved = guided(X.at[1:].add(1.0), TIMES, LABEL.at[1:].set(0))
    np.testing.assert_allclose(guided(X, TIMES, LABEL)[0], moved[0], atol=1e-6)
