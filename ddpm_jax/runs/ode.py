"""Negative log-likelihood of data under the probability-flow ODE of a run."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ddpm_jax.diffusion import Network
from ddpm_jax.experiment import Experiment, Params, network_fn, unpack
from ddpm_jax.runs.chunks import Result, Work
from ddpm_jax.runs.evaluate_requests import Dequantization
from ddpm_jax.runs.likelihood import by_example, over_examples
from ddpm_jax.sampling import Run


def ode_work(
    run: Run,
    source: Sequence,
    num: int,
    tolerance: float,
    dequantization: Dequantization,
    batch_size: int,
    seed: int,
) -> Work:
    """Upper bounds on -log p(x_0) of the first `num` examples by the probability-flow ODE, in nats per example.

    With "uniform", that of x_0 with uniform noise of the width of one level (Song et al. 2021b, Section D.2):

        log p(x_0) >= E[log p_1(x_0 + noise)] + dimensions * log(width)

    With "decoder", p(x_0 | x_1) of the run maps the ODE's x_1 to data, as in the variational bound:

        log p(x_0) >= E[log p_1(x_1) + log p(x_0 | x_1) - log q(x_1 | x_0)],    x_1 ~ q(x_1 | x_0)

    The results are {"nats": [chunk], "calls": [chunk]}, `calls` the calls of the network. Raises the ValueError of
    `check`.
    """
    from ddpm_jax.diffusion.ode import log_likelihood  # here, since diffrax takes as long to import as JAX

    check(run, tolerance, dequantization)
    width = _width(run.experiment) if dequantization == "uniform" else None

    def one(made: Experiment, weights: Params, key: Array, x_0: Array, label: Array | None) -> Array:
        network, condition = network_fn(made, weights), None if label is None else label[None]
        start_key, sign_key = (jax.random.fold_in(key, number)[None] for number in (0, 1))
        if width is None:
            x_1, gained = _with_decoder(made, network, start_key, x_0[None], condition)
        else:
            noise = width * (jax.random.uniform(start_key[0], x_0.shape) - 0.5)
            x_1, gained = (x_0 + noise)[None], jnp.float32(x_0.size * math.log(width))
        parts = made.process, made.parameterization, network
        found = log_likelihood(sign_key, *parts, x_1, condition, tolerance=tolerance)
        return jnp.stack([-(found.log_prob[0] + gained), found.calls[0].astype(jnp.float32)])

    def result(rows: np.ndarray) -> Result:
        return {"nats": rows[:, 0], "calls": rows[:, 1]}

    return over_examples(run, source, num, batch_size, seed, by_example(run, one), result)


def check(run: Run, tolerance: float, dequantization: Dequantization) -> None:
    """Raises ValueError for a tolerance outside (0, 1), and for a run or data that `ode_work` cannot measure.

    The process must be Gaussian with alpha_bar_T above 0, the network and its parameterization defined at real t, and
    for "uniform" the levels evenly spaced.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"--tolerance must lie between 0 and 1, got {tolerance:g}")
    made, weights = unpack(run.experiment, run.params)
    made.process.require_gaussian("--metrics nll", signal=True)
    x, label = jnp.zeros((1, *made.data.image_shape)), jnp.zeros((1,), jnp.int32) if made.num_classes else None
    between = min(1.5, float(made.process.schedule.num_steps))
    output = jax.eval_shape(lambda x: network_fn(made, weights)(x, jnp.float32(between), label), x)
    if not jnp.all(jnp.isfinite(made.parameterization.x_0(jnp.zeros(output.shape), x, jnp.float32(between)))):
        name = made.parameterization.name
        raise ValueError(f"--metrics nll needs estimates of x_0 at real t, which the parameterization {name} has not")
    if dequantization == "uniform":
        _width(run.experiment)


def _with_decoder(
    made: Experiment, network: Network, keys: Array, x_0: Array, condition: Array | None
) -> tuple[Array, Array]:
    """x_1 ~ q(x_1 | x_0), and log p(x_0 | x_1) - log q(x_1 | x_0), in nats."""
    marginal = made.process.marginal(x_0, 1)
    x_1 = marginal.sample(keys)
    kernel = made.parameterization.kernel(network(x_1, 1, condition), x_1, 1, 0)
    return x_1, jnp.sum(made.process.log_likelihood(kernel, x_0) - marginal.log_prob(x_1))


def _width(experiment: Experiment) -> float:
    """The distance of two levels in x_0. Raises ValueError unless the levels are evenly spaced from -1 to 1."""
    levels, encode = experiment.data.levels, experiment.encoding.encode
    ends = None if levels is None else encode(jax.random.key(0), jnp.array([0, levels - 1], jnp.uint8))
    if levels is None or ends is None or ends.tolist() != [-1, 1]:
        raise ValueError("--dequantization uniform needs levels evenly spaced from -1 to 1: choose decoder")
    return 2 / (levels - 1)
