"""The parameterization of binomial processes: the network predicts the log odds of each bit."""

import jax
import jax.numpy as jnp

from ddpm_jax.diffusion.types import Parameterization, Process, Rules


def logits(process: Process) -> Parameterization:
    """The network predicts the log odds that a bit of x_0 is 1.

        p(x_s | x_t) = q(x_s | x_t, x_0 = sigmoid(output))

    The training error is the cross-entropy with x_0, in nats per bit. Where the output is the true log odds given x_t,
    the kernel is exactly q(x_s | x_t), since the posterior is linear in x_0.
    """

    def error(process, output, clean, noise, t):
        return jax.nn.softplus(jnp.where(clean > 0.5, -output, output))

    def x_0(process, output, x_t, t):
        return jax.nn.sigmoid(output)

    def kernel(process, output, x_t, t, s):
        return process.posterior(x_t, x_0(process, output, x_t, t), t, s)

    return Parameterization(process, Rules(error, x_0, kernel), "logits")
