"""The parameterization of classifiers: the output is about the class of an image, not about its pixels."""

from typing import NoReturn

from ddpm_jax.diffusion.types import Parameterization, Process, Rules

CLASSES = "classes"
"""The name of the parameterization."""
NO_MODEL = (
    "this run is a classifier, which has no samples and no bound: use it for another run, in sample --classifier or "
    "evaluate --features"
)
"""The error of whatever needs a model of images."""


def classes(process: Process) -> Parameterization:
    """The network outputs the logits of the classes of x_t, [batch, classes] (Dhariwal & Nichol 2021, Section 4).

    See `losses.cross_entropy`.
    The network is no model of the images: `error`, `x_0` and `kernel`, and so samplers and bounds, raise ValueError.
    """
    return Parameterization(process, Rules(_refuse, _refuse, _refuse), CLASSES)


def _refuse(*_) -> NoReturn:
    raise ValueError(NO_MODEL)
