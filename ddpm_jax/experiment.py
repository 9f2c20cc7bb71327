"""An Experiment, which combines data, process, network and training, and the pure functions made from one."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Num

from ddpm_jax.data import Data
from ddpm_jax.data.encodings import Encoding, evenly
from ddpm_jax.diffusion import Network, Parameterization, Process, Sampler, Schedule, losses, samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.losses import Bound, Terms
from ddpm_jax.diffusion.parameterizations.classes import CLASSES
from ddpm_jax.training.averages import Decay, Power, gamma_of, power_name
from ddpm_jax.training.every import Every
from ddpm_jax.training.keys import check_seed
from ddpm_jax.training.state import EMA, TrainState, create
from ddpm_jax.training.step import Gradient, LossFn

Params = Any
Batch = dict[str, Array]


class Claim(NamedTuple):
    """A number that a paper states for an experiment. `ddpm-jax verify` compares the experiment with it."""

    what: str
    """A key of ``runs.verify.FIGURES``, such as "parameters", or ``runs.comparable.MEASURED``, such as "bits/dim"."""
    value: float
    source: str
    """Where the paper states it, such as "Table 2"."""


class TrainableSchedule(NamedTuple):
    """A schedule that is computed from parameters, which are trained with the network (2015, Section 2.4.1)."""

    init: Callable[[], Params]
    """``init()`` -> parameters."""
    schedule: Callable[[Params], Schedule]
    """``schedule(parameters)`` -> Schedule, differentiable."""


@dataclass(frozen=True, eq=False)  # parts are functions and arrays: an experiment is equal to itself only
class Experiment:
    """The settings of a run, as composed objects: what the function `experiment` of an experiment file returns.

    Raises ValueError for values that are out of range or do not fit together.
    """

    data: Data
    process: Process
    parameterization: Parameterization
    network: nn.Module
    optimizer: optax.GradientTransformation
    batch_size: int
    """Number of examples per training step, over all devices."""
    num_steps: int
    """Number of training steps."""
    ema_decay: optax.ScalarOrSchedule
    """Decay of the moving average of the parameters: a number, or a function of the step (`training.ema_ramp`)."""
    loss: Callable[..., Float[Array, " batch"]] = losses.simple
    """``(key, process, parameterization, network, x_0, condition)`` -> the loss of each example.

    The history of a `losses.Importance` is part of the train state.
    """
    power_averages: tuple[float, ...] = ()
    """Relative lengths of further averages, for lengths that are chosen after training: ``training.POWER_LENGTHS``.

    Each is a copy of the parameters in memory, and snapshots of them are kept in the workdir (Karras et al. 2024).
    """
    sampler: Callable[..., Sampler] = samplers.ddpm
    """``(process, parameterization, network, condition)`` -> Sampler, by default used with all T steps."""
    augment: Callable[[Array, Array], Array] | None = None
    """``(key, images)`` -> images, for training only, such as ``data.flip``."""
    gradient: Gradient = jax.value_and_grad
    """Makes the function for value and gradient of a loss: `jax.value_and_grad`, or ``training.clip_in_parts(8)``."""
    encoding: Encoding = None  # type: ignore[assignment]  # set below, where the data are known
    """Maps stored data to x_0 and back. Default: the levels evenly spaced over the range of the process."""
    trainable: TrainableSchedule | None = None
    """The schedule as a function of trained parameters; None for the fixed schedule of the process."""
    label_dropout: float = 0.0
    """Probability that a training example has no label, for networks that also sample without one."""
    preview_eta: float | None = 0.0
    """eta of the DDIM sampler for the sample grids of training; None: the experiment's sampler, with all T steps."""
    metrics: tuple[str, ...] = ("bpd",)
    """What `evaluate` measures by default: "bpd", "K" (the bound of 2015), "parzen", ..."""
    seed: int = 0
    every: Every = field(default_factory=Every)
    claims: tuple[Claim, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batch_size", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not callable(self.ema_decay) and not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {self.ema_decay}")
        if not 0 <= self.label_dropout < 1:
            raise ValueError(f"label_dropout must lie in [0, 1), got {self.label_dropout}")
        check_seed(self.seed)
        if len(decays(self)) <= len(self.power_averages):
            raise ValueError(f"power_averages must differ, got {self.power_averages}")
        levels = getattr(self.process.family.log_likelihood, "levels", self.data.levels)
        if levels != self.data.levels:
            raise ValueError(f"the data has {self.data.levels} levels, the likelihood of the process {levels}")
        if self.encoding is None:
            if self.data.levels is None:
                raise ValueError(f"the data {self.data.name} are floats (levels=None): give an encoding like points()")
            object.__setattr__(self, "encoding", evenly(self.data.levels, self.process.family.low))

    @property
    def num_classes(self) -> int | None:
        """The number of classes that the network is conditioned on; None for an unconditional network."""
        return getattr(self.network, "num_classes", None)

    @property
    def is_classifier(self) -> bool:
        """Whether the network classifies noisy images, for `parameterizations.classes`, and has no samples."""
        return self.parameterization.name == CLASSES


def labels(experiment: Experiment, num: int) -> np.ndarray | None:
    """Labels for `num` samples, the classes in turn: int32 [num]; None for an unconditional network."""
    classes = experiment.num_classes
    return None if classes is None else np.arange(num, dtype=np.int32) % classes


def init_fn(experiment: Experiment) -> Callable[[Array], Params]:
    """Returns ``init(key)`` -> the initial parameters, float32."""

    def init(key: Key[Array, ""]) -> Params:
        x = jnp.zeros((1, *experiment.data.image_shape))
        network = experiment.network.init(key, x, jnp.zeros((1,), jnp.int32), None).get("params", {})
        return network if experiment.trainable is None else {"network": network, "process": experiment.trainable.init()}

    return init


@lru_cache(maxsize=4)  # several parts of a command need them
def shapes(experiment: Experiment) -> Params:
    """The shapes and types of the parameters. Raises ValueError if the network cannot be built."""
    return jax.eval_shape(init_fn(experiment), jax.random.key(0))


def decays(experiment: Experiment) -> dict[str, Decay]:
    """The decays of the averages of the parameters, by their names in the train state."""
    powers: dict[str, Decay] = {power_name(each): Power(gamma_of(each)) for each in experiment.power_averages}
    return {EMA: experiment.ema_decay} | powers


def first_state(experiment: Experiment, params: Params) -> TrainState:
    """The train state at step 0 with these parameters."""
    return create(params, experiment.optimizer, decays(experiment), first_history(experiment))


def first_history(experiment: Experiment) -> losses.History | None:
    """The history of the loss at step 0; None for a loss that keeps none."""
    loss, T = experiment.loss, experiment.process.schedule.num_steps
    return loss.start(T) if isinstance(loss, losses.Importance) else None


def with_schedule(experiment: Experiment, schedule: Schedule) -> Experiment:
    """The experiment with this schedule, no longer trained, in its process and parameterization."""
    process = dataclasses.replace(experiment.process, schedule=schedule)
    parameterization = dataclasses.replace(experiment.parameterization, process=process)
    return dataclasses.replace(experiment, process=process, parameterization=parameterization, trainable=None)


def with_parameterization(experiment: Experiment, parameterization: Parameterization) -> Experiment:
    """The experiment with this parameterization, and the process of the parameterization."""
    return dataclasses.replace(experiment, process=parameterization.process, parameterization=parameterization)


def unpack(experiment: Experiment, params: Params) -> tuple[Experiment, Params]:
    """(experiment, parameters of the network); the experiment has the schedule that it trained, if it trains one."""
    if experiment.trainable is None:
        return experiment, params
    return with_schedule(experiment, experiment.trainable.schedule(params["process"])), params["network"]


def network_fn(experiment: Experiment, params: Params, dropout_key: Array | None = None) -> Network:
    """The network as a function of (x_t, t, condition), for t in [1, T]; with dropout if `dropout_key` is given.

    The only place where t becomes the index t - 1 that the Linen modules and published weights use. For a network with
    classes, a condition of None is "no label": a call raises ValueError if that was not trained (``label_dropout`` 0).
    """
    rngs = None if dropout_key is None else {"dropout": dropout_key}

    def network(x_t: Array, t: Any, condition: Array | None) -> Array:
        if experiment.num_classes is not None and condition is None and experiment.label_dropout == 0:
            raise ValueError("this network was trained with labels only (label_dropout 0): give a label")
        index = jnp.broadcast_to(jnp.asarray(t) - 1, x_t.shape[:1])
        label = condition if experiment.num_classes else None
        output: Any = experiment.network.apply({"params": params}, x_t, index, label, train=rngs is not None, rngs=rngs)
        return output

    return network


def loss_fn(experiment: Experiment) -> LossFn:
    """Returns ``loss(params, key, batch)`` -> mean loss; the batch has stored images, "image", and perhaps "label"."""

    def loss(params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        return experiment.loss(*_of_batch(experiment, params, key, batch)).mean()

    return loss


def recorded_loss_fn(experiment: Experiment) -> LossFn:
    """Returns ``loss(params, key, batch, history)`` -> (mean loss, what to add to the history).

    For an experiment whose loss is a `losses.Importance`.
    """

    def loss(params: Params, key: Array, batch: Batch, history: losses.History) -> tuple[Float[Array, ""], losses.Seen]:
        values, seen = experiment.loss.recorded(history, *_of_batch(experiment, params, key, batch))  # type: ignore
        return values.mean(), seen

    return loss


def _of_batch(experiment: Experiment, params: Params, key: Array, batch: Batch) -> tuple[Any, ...]:
    """The arguments of the experiment's loss for this batch: augmented, encoded, with labels dropped at random."""
    made, weights = unpack(experiment, params)
    key_augment, key_encode, key_label, key_dropout, key_loss = jax.random.split(key, 5)
    images = batch["image"] if made.augment is None else made.augment(key_augment, batch["image"])
    x_0 = made.encoding.encode(key_encode, images)
    label = _with_dropout(made, key_label, batch.get("label"))
    return key_loss, made.process, made.parameterization, network_fn(made, weights, key_dropout), x_0, label


def _with_dropout(experiment: Experiment, key: Array, label: Array | None) -> Array | None:
    """The labels, each replaced by "no label" with probability ``label_dropout``."""
    if label is None or not experiment.num_classes or not experiment.label_dropout:
        return label
    dropped = jax.random.bernoulli(key, experiment.label_dropout, label.shape)
    return jnp.where(dropped, experiment.num_classes, label)


def bound_fn(experiment: Experiment) -> Callable[..., Bound]:
    """Returns ``bound(params, keys, batch, times, weights, visits)`` -> the terms of `losses.bound`, in nats.

    The last three are those of `losses.bound`, by default None.
    """

    def bound(
        params: Params,
        keys: Array,
        batch: Batch,
        times: Int[Array, "..."] | None = None,
        weights: Float[Array, "..."] | None = None,
        visits: Num[ArrayLike, " visits"] | None = None,
    ) -> Bound:
        made, network, x_0 = _measured(experiment, params, keys, batch)
        given = batch.get("label"), times, weights, visits
        return losses.bound(keys, made.process, made.parameterization, network, x_0, *given)

    return bound


def terms_fn(experiment: Experiment) -> Callable[..., Terms]:
    """Returns ``terms(params, keys, batch, errors, targets)`` -> `losses.terms`, with the x_t and x_0 of `bound_fn`.

    The last two are those of `losses.terms`, by default None.
    """

    def terms(params: Params, keys: Array, batch: Batch, errors: Any = None, targets: Any = None) -> Terms:
        made, network, x_0 = _measured(experiment, params, keys, batch)
        given = batch.get("label"), errors, targets
        return losses.terms(keys, made.process, made.parameterization, network, x_0, *given)

    return terms


def _measured(experiment: Experiment, params: Params, keys: Array, batch: Batch) -> tuple[Experiment, Network, Array]:
    """(experiment, network, x_0) of a measurement with these parameters and examples."""
    made, network_params = unpack(experiment, params)
    # `losses.bound` folds 1..T into the keys, and `runs.likelihood` T + 1 to draw the times
    x_0 = made.encoding.encode(fold(keys, made.process.schedule.num_steps + 2), batch["image"])
    return made, network_fn(made, network_params), x_0
