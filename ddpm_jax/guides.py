"""Guidance of the samples of a run: by its own labels, by another run, or by a classifier."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from ddpm_jax.diffusion import Network, Parameterization, Sampler, Schedule, samplers
from ddpm_jax.diffusion.guidance import (
    Classifier,
    Scale,
    autoguidance,
    class_gradient,
    classifier_free,
    classifier_shift,
    labelled,
    limited,
    tilted,
)
from ddpm_jax.experiment import Experiment, Params, network_fn

Interval = tuple[float, float]
"""(low, high): levels sigma_t / alpha_t of the noise, between which there is guidance."""


class Guide(NamedTuple):
    """A second run: a worse model of the same images, or a classifier of them."""

    experiment: Experiment
    params: Params

    @property
    def option(self) -> str:
        """The option of the command line that names it."""
        return "classifier" if self.experiment.is_classifier else "guide"

    @property
    def network(self) -> Network:
        """Its network as a function of (x_t, t, condition)."""
        return network_fn(self.experiment, self.params)


def no_guidance(guide: Guide | None) -> float:
    """The scale that is no guidance: 0 for a classifier, and 1 for labels and for another model."""
    return 0.0 if guide is not None and guide.experiment.is_classifier else 1.0


def guided(
    kind: Callable[..., Sampler], experiment: Experiment, scale: Any, interval: Any = None, guide: Guide | None = None
) -> Callable[..., Sampler]:
    """The kind of sampler with guidance, `kind` itself being ``(process, parameterization, network, condition, ...)``.

    Without a guide it is `classifier_free`, with a model as guide `autoguidance`. A classifier as guide moves the mean
    of each ancestral step (`class_gradient`), and shifts the network for the other samplers (`classifier_shift`):
    Algorithms 1 and 2 of Dhariwal & Nichol 2021. With an interval there is guidance only in (low, high].
    """
    channels = experiment.data.image_shape[-1]

    def make(process, parameterization, network, condition, **numbers) -> Sampler:
        strength = scale if interval is None else limited(scale, process, *interval, outside=no_guidance(guide))
        if guide is None:
            network = classifier_free(network, strength, classes(experiment, scale), channels)
        elif not guide.experiment.is_classifier:
            network = autoguidance(network, guide.network, strength, channels)
        elif kind is samplers.ddpm:
            return _moved(parameterization, network, labelled(guide.network), condition, strength)
        else:
            network = classifier_shift(network, process, parameterization, labelled(guide.network), strength)
        return kind(process, parameterization, network, condition, **numbers)

    return make


def _moved(
    parameterization: Parameterization, network: Network, classifier: Classifier, label: Array | None, scale: Scale
) -> Sampler:
    """Ancestral sampling whose steps are tilted towards the label."""
    if label is None:
        raise ValueError("guidance needs a label for each example")
    kernel = samplers.reverse(parameterization, network, label)
    sampler = samplers.ancestral(tilted(kernel, class_gradient(classifier, label, scale)))
    return sampler._replace(single_steps=parameterization.single_steps)


def classes(experiment: Experiment, guidance: Any) -> int:
    """The number of classes. Raises ValueError if the network cannot be guided by them."""
    if experiment.num_classes is None:
        raise ValueError(f"--guidance {guidance}: leave it out, this run is not class-conditional")
    if experiment.label_dropout == 0:
        raise ValueError(f"--guidance {guidance}: this run has never been without a label: train with label dropout")
    return experiment.num_classes


def check_interval(interval: Interval | None) -> None:
    """Raises ValueError unless the levels are finite and in order."""
    if interval is not None and not (all(map(math.isfinite, interval)) and interval[0] < interval[1]):
        low, high = interval
        raise ValueError(f"--guidance-interval {low} {high}: give two finite levels, the lower one first")


def check_guide(experiment: Experiment, guide: Guide, kind: Callable[..., Sampler]) -> None:
    """Raises ValueError, with the first difference, unless the output of the guide means the same at every x_t."""
    if experiment.trainable or guide.experiment.trainable:
        raise ValueError(f"--{guide.option}: a run that trains its schedule has another one than its guide")
    theirs, ours = _meaning(guide.experiment), _meaning(experiment)
    for what in ours:
        if what in theirs and ours[what] != theirs[what]:
            difference = f"the {what} of the {guide.option} is {theirs[what]}, not {ours[what]} as in this run"
            raise ValueError(f"--{guide.option}: {difference}")
    if not _same_levels(experiment.process.schedule, guide.experiment.process.schedule):
        raise ValueError(f"--{guide.option}: the {guide.option} has another schedule than this run")
    _check_classes(experiment, guide)
    if guide.experiment.is_classifier:
        experiment.process.require_gaussian("classifier guidance", signal=kind is not samplers.ddpm)


def _check_classes(experiment: Experiment, guide: Guide) -> None:
    """Raises ValueError if both runs know classes, and not the same number. A model as guide may know none."""
    ours, theirs = experiment.num_classes, guide.experiment.num_classes
    if guide.experiment.is_classifier:
        theirs = guide.experiment.data.num_classes
        ours = ours or theirs  # a run without classes is guided to those of the classifier
    if theirs not in (None, ours):
        what = f"the {guide.option} has {theirs} classes, this run has {ours or 'no'} classes"
        raise ValueError(f"--{guide.option}: {what}")


def _meaning(experiment: Experiment) -> dict[str, Any]:
    """What a run and its guide have in common, by name; a classifier has its own parameterization."""
    meaning = {
        "shape of the images": experiment.data.image_shape,
        "number of levels of a pixel": experiment.data.levels,
        "process": experiment.process.family.name,
        "number of steps T": experiment.process.schedule.num_steps,
        "scale of x_0": experiment.encoding.unit,
    }
    return meaning if experiment.is_classifier else meaning | {"parameterization": experiment.parameterization.name}


def _same_levels(one: Schedule, other: Schedule) -> bool:
    pairs = (one.alpha_bar, other.alpha_bar), (one.one_minus_alpha_bar, other.one_minus_alpha_bar)
    return all(np.allclose(*pair, rtol=1e-5, atol=0) for pair in pairs)
