"""The parameterization of binomial processes: the network predicts the log odds of each bit."""

import jax
import jax.numpy as jnp

from ddpm_jax.diffusion.distributions import Bernoulli
from ddpm_jax.diffusion.types import Parameterization, Process, Rules


def logits(process: Process) -> Parameterization:
    """The network predicts the log odds that each bit of x_0 is 1; its output has the shape of x_t.

        p(x_s | x_t) = q(x_s | x_t, x_0 = sigmoid(output))

    The kernel is Bernoulli, as in 2015, Table App. 1; its probabilities follow from those of x_0. The training error is
    the cross-entropy with x_0, in nats per bit. Where the output is the true log odds given x_t, the kernel is exactly
    q(x_s | x_t), since the posterior is linear in x_0.
    """
    return Parameterization(process, Rules(_cross_entropy, _x_0, _kernel), "logits")


def _cross_entropy(process, output, clean, noise, t):
    return jax.nn.softplus(jnp.where(clean > 0.5, -output, output))


def _x_0(process, output, x_t, t):
    return jax.nn.sigmoid(output)


def _kernel(process, output, x_t, t, s):
    # both probabilities are computed: in float32, 1 - sigmoid(output) is 0 for outputs above about 17
    return process.posterior(x_t, Bernoulli(jax.nn.sigmoid(output), jax.nn.sigmoid(-output)), t, s)
