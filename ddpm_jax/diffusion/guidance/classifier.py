"""Guidance by a classifier of noisy examples, for networks trained without labels (Dhariwal & Nichol 2021)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.guidance.labels import Scale, strength
from ddpm_jax.diffusion.guidance.products import LogGradient
from ddpm_jax.diffusion.types import Network, Parameterization, Process

Classifier = Callable[[Array, ArrayLike, Array], Array]
"""``classifier(x_t, t, label)`` -> log p(label | x_t), [batch], for t in [1, T]."""


def labelled(network: Network) -> Classifier:
    """The classifier whose logits, [batch, classes], are the output of ``network(x_t, t, None)``."""

    def log_prob(x_t: Array, t: ArrayLike, label: Array) -> Float[Array, " batch"]:
        logs = jax.nn.log_softmax(network(x_t, t, None))
        return jnp.take_along_axis(logs, label[:, None], axis=1)[:, 0]

    return log_prob


def class_gradient(classifier: Classifier, label: Array, scale: Scale = 1.0) -> LogGradient:
    """The `log_gradient` of `tilted` for samples of a class (Dhariwal & Nichol 2021, Algorithm 1).

        ``tilted(kernel, class_gradient(classifier, label, scale))``:
        new mean = mean + scale variance grad_x log p(label | x),    at x = mean, with the noise level of s

    As in their derivation the gradient is that at the mean of p(x_s | x_t); their code has the one at x_t. For a
    Gaussian process. At s = 0 the classifier is evaluated at t = 1. Scale 1 is the class as it is, up to an error that
    falls with the length of the steps; more is nearer to the class and less diverse.
    """

    def gradient(x: Array, s: ArrayLike) -> Array:
        at = jnp.maximum(s, 1)
        return strength(scale, at, x.ndim) * _gradient(classifier, x, at, label)

    return gradient


def classifier_shift(
    network: Network,
    process: Process,
    parameterization: Parameterization,
    classifier: Classifier,
    scale: Scale = 1.0,
) -> Network:
    """The network guided by a classifier, for every sampler (Dhariwal & Nichol 2021, Algorithm 2).

        eps = eps(x_t, t) - scale sqrt(1 - alpha_bar_t) grad_x log p(label | x_t)
        or the output of another parameterization for this eps:
        x_0 = x_0(x_t, t) + scale (1 - alpha_bar_t) / sqrt(alpha_bar_t) grad_x log p(label | x_t)

    The condition of the result is the label, which the network is given too. With the true classifier and scale 1 this
    is exactly the network of the class. The parameterization must be affine in the output, as all Gaussian ones are;
    the channels of a learned variance remain. Works with any sampler, also without noise; each step costs a call of the
    network and a gradient of the classifier. Raises ValueError for a binomial process and where alpha_bar_T is 0; the
    guided network raises it without a label.
    """
    process.require_gaussian("classifier guidance", signal=True)
    plain = parameterization.unclipped()

    def guided(x_t: Array, t: ArrayLike, condition: Array | None) -> Array:
        if condition is None:
            raise ValueError("guidance needs a label for each example")
        output = network(x_t, t, condition)
        alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
        shift = one_minus / jnp.sqrt(alpha_bar) * _gradient(classifier, x_t, t, condition)
        shift = strength(scale, t, x_t.ndim) * shift / _slope(plain, output, x_t, t)
        padding = [(0, 0)] * (output.ndim - 1) + [(0, output.shape[-1] - x_t.shape[-1])]
        return output + jnp.pad(shift, padding)

    return guided


def _gradient(classifier: Classifier, x: Array, t: ArrayLike, label: Array) -> Array:
    """The gradient of log p(label | x) with respect to x; examples do not depend on each other."""
    return jax.grad(lambda x: classifier(x, t, label).sum())(x)


def _slope(parameterization: Parameterization, output: Array, x_t: Array, t: ArrayLike) -> Array:
    """The derivative of x_0, affine in the output, with respect to it; taken at x_t = 0, where no digits cancel.

    The channels of a learned variance, on which x_0 may depend too, remain as they are.
    """
    variance = output[..., x_t.shape[-1] :]
    outputs = (jnp.concatenate([jnp.full_like(x_t, n), variance], axis=-1) for n in (0.0, 1.0))
    zero, one = (parameterization.x_0(each, jnp.zeros_like(x_t), t) for each in outputs)
    return one - zero
