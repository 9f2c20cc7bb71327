"""Guidance of runs: between two levels of the noise, and by a second run, whose parameters are arguments."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ddpm_jax.data import Data
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.experiment import Experiment, TrainableSchedule, with_schedule
from ddpm_jax.sampling import Run, sample_fn
from ddpm_jax.training.keys import keys

PROCESS = gaussian.process(schedules.linear(40, 0.002, 0.3), gaussian.density)


class Constant(nn.Module):
    """Predicts the same x_0 everywhere: a parameter, plus the label; label `num_classes` is none."""

    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        mean = self.param("mean", nn.initializers.zeros, ())
        if self.num_classes is None or label is None:
            return jnp.zeros_like(x) + mean
        return jnp.zeros_like(x) + mean + (label % self.num_classes).astype(jnp.float32)[:, None]


POINTS = Data("points", (2,), open=lambda split: [], levels=None)


def made(network: nn.Module | None = None, data: Data = POINTS, **changes) -> Experiment:
    given = {
        "process": PROCESS,
        "parameterization": parameterizations.x0(PROCESS),
        "optimizer": optax.sgd(0.1),
        "batch_size": 4,
        "num_steps": 1,
        "ema_decay": 0.9,
        "sampler": samplers.ddim,
        "encoding": points(),
    }
    return Experiment(data=data, network=network or Constant(), **(given | changes))


OURS = made()


def run(mean: float, experiment: Experiment = OURS) -> Run:
    return Run(experiment, {"mean": jnp.float32(mean)}, 0)


CLASSES = made(Constant(3), dataclasses.replace(POINTS, num_classes=3), label_dropout=0.1)


def test_a_guide_moves_the_samples_away_from_its_own():
    """guide + scale (ours - guide), for any guide without another compilation."""
    for mean, scale in ((0.2, 2.0), (-0.5, 3.0), (0.5, 1.5)):
        images = run(0.5).sampler(guidance=scale, guide=run(mean))(keys(0, 3))
        np.testing.assert_allclose(images, np.full((3, 2), mean + scale * (0.5 - mean)), atol=1e-5)
    program = run(0.5).sampler(guidance=2.0, guide=run(0.0)).func
    assert program._cache_size() == 1


def test_a_guide_without_labels_guides_classes():
    images = run(0.0, CLASSES).sampler(guidance=2.0, guide=run(0.5))(keys(0, 3), jnp.arange(3))
    np.testing.assert_allclose(images[:, 0], 2.0 * np.arange(3) - 0.5, atol=1e-5)


def last(interval, guidance=3.0):
    return run(0.0, CLASSES).sampler(guidance=guidance, interval=interval)(keys(0, 2), jnp.array([1, 2]))[:, 0]


def test_an_interval_decides_where_there_is_guidance():
    """DDIM ends at the last x_0, which is guided where the interval has the level of t = 1, sigma / alpha = 0.04."""
    np.testing.assert_allclose(last(None), [3, 6], atol=1e-5)
    np.testing.assert_allclose(last((0.0, 1e6)), [3, 6], atol=1e-5)
    np.testing.assert_allclose(last((0.0, 0.1)), [3, 6], atol=1e-5)
    np.testing.assert_allclose(last((0.1, 1e6)), [1, 2], atol=1e-5)
    assert run(0.0, CLASSES).sampler(guidance=2.0, interval=(0.3, 4.0)).func._cache_size() == 2  # without and with one


@pytest.mark.parametrize("interval", [(2.0, 1.0), (1.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_an_interval_is_two_finite_levels_in_order(interval):
    with pytest.raises(ValueError, match=r"--guidance-interval .*: give two finite levels, the lower one first"):
        last(interval)


OTHER = gaussian.process(schedules.linear(40, 0.003, 0.3), gaussian.density)


@pytest.mark.parametrize(
    "guide, message",
    [
        (
            made(data=Data("points", (3,), open=lambda split: [], levels=None)),
            r"images of the guide is \(3,\), not \(2",
        ),
        (dataclasses.replace(OURS, parameterization=parameterizations.eps(PROCESS)), "guide is eps, not x0"),
        (made(process=OTHER, parameterization=parameterizations.x0(OTHER)), "another schedule"),
        (CLASSES, "the guide has 3 classes, this run has no classes"),
    ],
    ids=["shape", "parameterization", "schedule", "classes"],
)
def test_guides_that_predict_something_else_are_refused(guide, message):
    with pytest.raises(ValueError, match=f"--guide: .*{message}"):
        run(0.5).sampler(guidance=2.0, guide=run(0.0, guide))


def test_an_interval_or_a_guide_alone_is_refused():
    with pytest.raises(ValueError, match="--guidance-interval needs the scale of guidance"):
        run(0.5).sampler(interval=(0.1, 1.0))
    with pytest.raises(ValueError, match="--guide needs the scale of guidance"):
        run(0.5).sampler(guide=run(0.0))


class Half(nn.Module):
    """Estimates x_0 as a multiple of x_t, so that samples depend on the times."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return self.param("share", nn.initializers.ones, ()) * x


@pytest.mark.parametrize("spacing", ["karras", "logsnr", "even"])
def test_the_steps_are_spaced_over_the_schedule_that_was_trained(spacing):
    """A run that trained its way to a schedule samples as one that has had this schedule from the start."""

    def schedule(last):
        return schedules.from_traced_betas(0.002 + (last - 0.002) * jnp.linspace(0, 1, 40))

    trained = made(Half(), trainable=TrainableSchedule(lambda: jnp.float32(0.3), schedule))
    weights = {"share": jnp.float32(0.5)}
    run = Run(trained, {"network": weights, "process": jnp.float32(0.05)}, 0)
    fixed = Run(with_schedule(trained, schedule(0.05)), weights, 0)
    images, same = (each.sampler(steps=5, spacing=spacing)(keys(0, 3)) for each in (run, fixed))
    np.testing.assert_allclose(images, same, rtol=1e-5)
    untrained = sample_fn(trained, None, 5, None, samplers.SPACINGS[spacing], schedule=PROCESS.schedule)
    assert np.allclose(untrained(run.params, keys(0, 3)), images, rtol=1e-5) == (spacing == "even")


def test_a_spacing_over_a_schedule_that_is_not_known_is_refused():
    trained = made(trainable=TrainableSchedule(lambda: jnp.zeros(()), lambda last: PROCESS.schedule))
    for spacing in ("karras", "logsnr"):
        with pytest.raises(ValueError, match=r"the spacing depends on the schedule, .* give Run.schedule"):
            sample_fn(trained, steps=5, spacing=samplers.SPACINGS[spacing])
        sample_fn(trained, steps=5, spacing=samplers.SPACINGS[spacing], schedule=PROCESS.schedule)
