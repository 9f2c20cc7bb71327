"""Runs that are guided by a classifier: on a mixture of two normal distributions, where both networks are known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ddpm_jax.data import Data
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import binomial, gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.sampling import Run
from ddpm_jax.training.keys import keys

PROCESS = gaussian.process(schedules.linear(100, 1e-3, 0.15), gaussian.density)
MEANS, VARIANCE, NUM = np.array([-0.8, 0.5], np.float32), 0.05, 1500


def of_classes(x, index):
    """(log q(x_t | class), E[x_0 | x_t, class]) up to a constant, [batch, 2] each."""
    alpha_bar, one_minus = PROCESS.schedule.at(index + 1, 2)
    total, away = alpha_bar * VARIANCE + one_minus, x - jnp.sqrt(alpha_bar) * jnp.asarray(MEANS)[None]
    return -(away**2) / (2 * total), jnp.asarray(MEANS)[None] + jnp.sqrt(alpha_bar) * VARIANCE / total * away


class Mixture(nn.Module):
    """The best x_0 for the mixture of both classes; it is not given the class."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        logs, x_0 = of_classes(x, index)
        return (jax.nn.softmax(logs) * x_0).sum(axis=1, keepdims=True)


class Posterior(nn.Module):
    """The true classifier; or, `blind`, one that has not learned anything."""

    blind: bool = False

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return of_classes(x, index)[0] * (not self.blind)


def made(network: nn.Module, process=PROCESS, classes: int | None = 2, shape=(1,)) -> Experiment:
    kind = parameterizations.x0 if isinstance(network, Mixture) else parameterizations.classes
    return Experiment(
        data=Data("points", shape, open=lambda split: [], num_classes=classes, levels=None),
        process=process,
        parameterization=kind(process),
        network=network,
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
        encoding=points(),
    )


MODEL, CLASSIFIER = Run(made(Mixture()), {}, 0), Run(made(Posterior()), {}, 0)
LABELS = jnp.arange(NUM) % 2


def drawn(guide: Run | None, guidance: float | None = 1.0, **options) -> np.ndarray:
    condition = None if guide is None else LABELS
    return np.asarray(MODEL.sampler(guide=guide, guidance=guidance, **options)(keys(0, NUM), condition))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_true_classifier_at_scale_1_draws_each_class_by_itself(sampler):
    """In mean and variance, within four standard errors and the error of 100 steps."""
    images = drawn(CLASSIFIER, sampler=sampler)
    for label, mean in enumerate(MEANS):
        of_class = images[label::2, 0]
        assert of_class.mean() == pytest.approx(mean, abs=0.03 + 4 * np.sqrt(VARIANCE / len(of_class)))
        assert of_class.var() == pytest.approx(VARIANCE, rel=0.1 + 4 * np.sqrt(2 / len(of_class)))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_scale_0_and_a_classifier_that_knows_nothing_and_an_empty_interval_change_nothing(sampler):
    plain = drawn(None, None, sampler=sampler, steps=5)
    np.testing.assert_array_equal(plain, drawn(CLASSIFIER, 0.0, sampler=sampler, steps=5))
    blind = Run(made(Posterior(blind=True)), {}, 0)
    np.testing.assert_allclose(plain, drawn(blind, 3.0, sampler=sampler, steps=5), atol=1e-5)
    outside = drawn(CLASSIFIER, 3.0, sampler=sampler, steps=5, interval=(1e5, 1e6))
    np.testing.assert_allclose(plain, outside, atol=1e-5)
    assert np.abs(plain - drawn(CLASSIFIER, 3.0, sampler=sampler, steps=5)).max() > 0.1


def test_the_scale_is_an_argument_of_the_program():
    for scale in (0.5, 2.0):
        drawn(CLASSIFIER, scale, steps=5, sampler="heun")
    assert MODEL.sampler(guide=CLASSIFIER, guidance=2.0, sampler="heun").func._cache_size() == 1


def with_steps(T: int, beta_1: float = 1e-3):
    return gaussian.process(schedules.linear(T, beta_1, 0.15), gaussian.density)


WRONG = {
    "T": (made(Posterior(), with_steps(90)), "number of steps T of the classifier is 90, not 100"),
    "schedule": (made(Posterior(), with_steps(100, 2e-3)), "the classifier has another schedule than this run"),
    "shape": (made(Posterior(), shape=(2,)), r"shape of the images of the classifier is \(2,\), not \(1,\)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_classifier_of_something_else_is_refused(what):
    guide, message = WRONG[what]
    with pytest.raises(ValueError, match=f"--classifier: .*{message}"):
        MODEL.sampler(guide=Run(guide, {}, 0), guidance=2.0)


def test_a_classifier_alone_is_refused_and_a_label_is_needed():
    with pytest.raises(ValueError, match="--classifier needs the scale of guidance"):
        MODEL.sampler(guide=CLASSIFIER)
    for sampler in ("ancestral", "ddim"):
        with pytest.raises(ValueError, match="needs a label for each example"):
            MODEL.sampler(guide=CLASSIFIER, guidance=2.0, sampler=sampler)(keys(0, 2))


def test_runs_that_a_classifier_cannot_guide():
    conditional = dataclasses.replace(MODEL.experiment, network=Labelled(3))
    with pytest.raises(ValueError, match="--classifier: the classifier has 2 classes, this run has 3 classes"):
        Run(conditional, {}, 0).sampler(guide=CLASSIFIER, guidance=2.0)
    process = binomial.process(schedules.steady(5), 0.5)
    bits, guide = (made(network, process) for network in (Mixture(), Posterior()))
    with pytest.raises(ValueError, match="classifier guidance needs a Gaussian process"):
        Run(bits, {}, 0).sampler(guide=Run(guide, {}, 0), guidance=2.0)
    with pytest.raises(ValueError, match="this run is a classifier, which has no samples"):
        CLASSIFIER.sampler()


class Labelled(Mixture):
    """Has a number of classes."""

    num_classes: int = 0
