"""The hall, where the rooms meet: an Experiment, and the pure functions made from one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.data import Data
from ddpm_jax.diffusion import Process, losses, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses import Bound, Network
from ddpm_jax.diffusion.parameterizations import Parameterization
from ddpm_jax.diffusion.samplers import Sampler
from ddpm_jax.encodings import Encoding, evenly
from ddpm_jax.training.step import LossFn, ValueAndGrad

Params = Any
Batch = dict[str, Array]


@dataclass(frozen=True)
class Every:
    """After how many steps each thing is done; 0 is never. Samples and checkpoints are also made at the end."""

    log: int = 50
    sample: int = 1000
    save: int = 1000


class Claim(NamedTuple):
    """A figure that a paper states of a run; `ddpm-jax verify` sets ours beside it."""

    what: str
    """One of ``verify.FIGURES``, or something to be measured: "bits/dim", "FID", "IS"."""
    value: float
    source: str


class Trainable(NamedTuple):
    """A process that is made from parameters, inside the loss (2015, Section 2.4.1: the betas)."""

    init: Callable[[], Params]
    make: Callable[[Params], tuple[Process, Parameterization]]


@dataclass(frozen=True, eq=False)  # its parts are functions and arrays: two are the same where they are one
class Experiment:
    """One run, as composed objects. What an experiment file returns."""

    data: Data
    process: Process
    parameterization: Parameterization
    network: nn.Module
    optimizer: optax.GradientTransformation
    batch_size: int
    """Of the whole run, whatever the number of devices."""
    num_steps: int
    ema_decay: optax.ScalarOrSchedule
    """Of the average of the parameters, or a function of the step, such as ``training.ema_ramp(0.9995)``."""
    loss: Callable[..., Float[Array, " batch"]] = losses.simple
    sampler: Callable[..., Sampler] = samplers.ddpm
    """``(process, parameterization, network, condition)`` -> Sampler, walked over all T steps."""
    augment: Callable[[Array, Array], Array] | None = None
    """``(key, images)`` -> images, for training only, such as ``data.flip``."""
    gradient: Callable[[LossFn], ValueAndGrad] = jax.value_and_grad
    """What is taken of the loss: plain, or as ``training.clip_in_parts(8)`` gives it."""
    encoding: Encoding | None = None
    """How stored data become x_0 and back; by default their levels are spread evenly over the range of the process."""
    trainable: Trainable | None = None
    """Parameters of the process itself, where it has any."""
    preview_eta: float | None = 0.0
    """Of the quick DDIM that draws the pictures in training; None draws them by the sampler, over all T steps."""
    metrics: tuple[str, ...] = ("bpd",)
    """What `evaluate` tells unless asked: "bpd", "K", the bound of 2015, and "parzen"."""
    seed: int = 0
    every: Every = field(default_factory=Every)
    claims: tuple[Claim, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that no run can have."""
        for name, least in (("batch_size", 1), ("num_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not callable(self.ema_decay) and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        check_seed(self.seed)
        levels = getattr(self.process.log_likelihood, "levels", self.data.levels)
        if levels != self.data.levels:
            raise ValueError(f"the data has {self.data.levels} levels, the likelihood of the process {levels}")

    @property
    def codec(self) -> Encoding:
        """The encoding, chosen or not."""
        return self.encoding or evenly(self.data.levels or 256, self.process.low)

    @property
    def num_classes(self) -> int | None:
        """How many classes the network is told of; None where it is told no label."""
        return getattr(self.network, "num_classes", None)


def check_seed(seed: int) -> None:
    """Raises ValueError for what JAX takes for no seed."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"a seed is a number from 0 to 2^63 - 1, got {seed}")


def keys(seed: int, num: int, start: int = 0) -> Key[Array, " num"]:
    """The keys of images `start` .. `start + num - 1` of `seed`: image i depends on (seed, i) and nothing else."""
    check_seed(seed)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(start, start + num))


def labels(experiment: Experiment, num: int) -> np.ndarray | None:
    """Each class in turn, int32 [num]; None where the network is told no label."""
    classes = experiment.num_classes
    return None if classes is None else np.arange(num, dtype=np.int32) % classes


@lru_cache(maxsize=4)  # asked for by all that a start consists of
def shapes(experiment: Experiment) -> Params:
    """The parameters as shapes and types alone. Raises ValueError if the network cannot be built."""
    return jax.eval_shape(init_fn(experiment), jax.random.key(0))


def out_channels(experiment: Experiment) -> int:
    """Of the network's output: more than the image's where it tells its variance too."""
    return getattr(experiment.network, "out_channels", None) or experiment.data.image_shape[-1]


def init_fn(experiment: Experiment) -> Callable[[Array], Params]:
    """``key`` -> parameters, float32."""

    def init(key: Key[Array, ""]) -> Params:
        x = jnp.zeros((1, *experiment.data.image_shape))
        network = experiment.network.init(key, x, jnp.zeros((1,), jnp.int32), None).get("params", {})
        return network if experiment.trainable is None else {"network": network, "process": experiment.trainable.init()}

    return init


def resolved(experiment: Experiment, params: Params) -> tuple[Experiment, Params]:
    """With the process that the parameters make, where they do, and the parameters of the network alone."""
    if experiment.trainable is None:
        return experiment, params
    process, parameterization = experiment.trainable.make(params["process"])
    made = replace(experiment, process=process, parameterization=parameterization, trainable=None)
    return made, params["network"]


def bind(experiment: Experiment, params: Params, dropout_key: Array | None = None) -> Network:
    """The network as a function of (x_t, t, condition), t in 1..T; with a key, in training, with dropout.

    The one place where t becomes the index t - 1 that the Linen modules, and published weights, count from.
    """
    rngs = None if dropout_key is None else {"dropout": dropout_key}

    def network(x_t: Array, t: Any, condition: Array | None) -> Array:
        index = jnp.broadcast_to(jnp.asarray(t, jnp.int32) - 1, x_t.shape[:1])
        label = condition if experiment.num_classes else None
        output: Any = experiment.network.apply({"params": params}, x_t, index, label, train=rngs is not None, rngs=rngs)
        return output

    return network


def loss_fn(experiment: Experiment) -> LossFn:
    """``(params, key, batch)`` -> the mean of the experiment's loss; the batch holds uint8 images and labels."""

    def loss(params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        made, weights = resolved(experiment, params)
        images = batch["image"]
        if experiment.augment is not None:
            key, key_augment = jax.random.split(key)
            images = experiment.augment(key_augment, images)
        key_loss, key_dropout = jax.random.split(key)
        if made.encoding is not None:
            key_loss, key_encode = jax.random.split(key_loss)
            x_0 = made.encoding.encode(key_encode, images)
        else:
            x_0 = made.codec.encode(key_loss, images)  # which draws nothing
        network = bind(made, weights, key_dropout)
        per_example = made.loss(key_loss, made.process, made.parameterization, network, x_0, batch.get("label"))
        return per_example.mean()

    return loss


def sample_fn(experiment: Experiment, steps: int | None = None, eta: float | None = None) -> Callable[..., Array]:
    """``(params, keys, condition=None)`` -> uint8 images, one per key, or what else the encoding gives.

    `steps` walks that many of the T steps, evenly spaced; `eta` takes DDIM with that eta in place of the experiment's
    own sampler. Raises ValueError where steps is not in 1..T or eta not in [0, 1].
    """
    times, make = _times(experiment, steps), sampler_fn(experiment, eta)

    def sample(params: Params, keys: Key[Array, " batch"], condition: Array | None = None) -> Array:
        x_0 = samplers.sample(keys, make(params, condition), start(experiment, keys), times)
        return experiment.codec.decode(x_0)

    return sample


def sampler_fn(experiment: Experiment, eta: float | None = None) -> Callable[[Params, Array | None], Sampler]:
    """``(params, condition)`` -> the experiment's own sampler, or DDIM with this eta. Raises ValueError, as above."""
    if eta is not None and not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    kind = experiment.sampler if eta is None else partial(samplers.ddim, eta=eta)

    def make(params: Params, condition: Array | None) -> Sampler:
        made, weights = resolved(experiment, params)
        return kind(made.process, made.parameterization, bind(made, weights), condition)

    return make


def bound_fn(experiment: Experiment) -> Callable[..., Bound]:
    """``(params, keys, batch, times=None, weights=None)`` -> the terms of the bound, nats; see `losses.bound`."""

    def bound(
        params: Params,
        keys: Array,
        batch: Batch,
        times: Int[Array, "..."] | None = None,
        weights: Float[Array, "..."] | None = None,
    ) -> Bound:
        made, network_params = resolved(experiment, params)
        # bound folds in 1 .. T, and T + 1 is taken by who draws the times
        x_0 = made.codec.encode(fold(keys, made.process.schedule.num_steps + 2), batch["image"])
        network = bind(made, network_params)
        return losses.bound(keys, made.process, made.parameterization, network, x_0, batch.get("label"), times, weights)

    return bound


def _times(experiment: Experiment, steps: int | None):
    num_steps = experiment.process.schedule.num_steps
    return samplers.times(num_steps, num_steps if steps is None else steps)


def start(experiment: Experiment, keys: Key[Array, " batch"]) -> Array:
    """x_T of each key. The walk folds t = 1 .. T into the keys; 0 is free for this."""
    return experiment.process.prior((len(keys), *experiment.data.image_shape)).sample(fold(keys, 0))


class Run(NamedTuple):
    """A trained experiment: what ``ddpm_jax.load`` returns."""

    experiment: Experiment
    params: Params
    """The exponential moving average of the parameters."""
    step: int
    """The training step they are from."""

    def sampler(self, steps: int | None = None, eta: float | None = None) -> Callable[..., Array]:
        """``(keys, condition=None)`` -> uint8 [num, height, width, channels], or points: pure, for `jax.jit`.

        See `sample_fn`.
        """
        return partial(sample_fn(self.experiment, steps, eta), self.params)
