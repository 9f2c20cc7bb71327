"""The types of the diffusion package: network, distribution, process, parameterization, kernel and sampler."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ddpm_jax.diffusion.schedules import Schedule

Network = Callable[[Array, ArrayLike, Array | None], Array]
"""``network(x_t, t, condition)`` -> output. t is in [1, T], integer or real, a scalar or one per example, [batch]."""


@runtime_checkable
class Distribution(Protocol):
    """A distribution of independent elements, such as q(x_t | x_s): `distributions.Normal` or `.Bernoulli`."""

    def noise(self, key: Array) -> Array:
        """The noise that `push` transforms into a sample, of the shape of the sample. `key` may be one per example."""
        ...

    def push(self, noise: Array) -> Array:
        """The sample that follows from this noise, of the shape of the noise."""
        ...

    def sample(self, key: Array) -> Array:
        """``push(noise(key))``: a sample, of the shape of the distribution's parameters, such as the mean."""
        ...

    def mode(self) -> Array:
        """The most probable value, element by element."""
        ...

    def log_prob(self, x: Array) -> Array:
        """Log density or log probability of `x`, in nats, element by element."""
        ...

    def kl(self, other) -> Array:
        """``D_KL(self || other)``, in nats, element by element."""
        ...

    def entropy(self) -> Array:
        """The entropy (differential, for a density), in nats, element by element."""
        ...

    def tilt(self, gradient) -> "Distribution":
        """The distribution multiplied by ``exp(gradient * x)`` and normalized."""
        ...


Kernel = Callable[[Array, ArrayLike, ArrayLike], Distribution]
"""``kernel(x_t, t, s)`` -> p(x_s | x_t), for s < t."""
Variance = Callable[[Schedule, ArrayLike, ArrayLike, int], Array]
"""``variance(schedule, t, s, ndim)`` -> the variance of p(x_s | x_t), with trailing axes of size one up to `ndim`."""


class Family(NamedTuple):
    """The functions that define a kind of forward process, such as the Gaussian one, for any schedule."""

    name: str
    """ "gaussian", "binomial", or another name for a process defined elsewhere."""
    prior: Callable[[tuple[int, ...]], Any]
    """``prior(shape)`` -> pi(x_T), the stationary distribution."""
    transition: Callable[..., Any]
    """``transition(schedule, x_s, s, t)`` -> q(x_t | x_s), for s < t."""
    posterior: Callable[..., Any]
    """``posterior(schedule, x_t, x_0, t, s, eta)`` -> q(x_s | x_t, x_0), for s < t."""
    log_likelihood: Callable[[Any, Array], Array]
    """``log_likelihood(dist, x_0)`` -> log p(x_0 | x_1) under `dist`, in nats, element by element."""
    low: float = -1.0
    """The lower end of the range of the data; the upper end is 1."""
    rate: float | None = None
    """The base rate of a binomial process: the probability of a one under the prior. None for other processes."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Process:
    """A forward process: a family of distributions with a schedule.

    Make one with `gaussian.process` or `binomial.process`. A Process is a pytree, whose leaves are those of the
    schedule. A jitted function with a process as argument is compiled once for all processes of the same family whose
    schedules have the same name and length.
    """

    schedule: Schedule
    family: Family = field(metadata={"static": True})

    def prior(self, shape: tuple[int, ...]) -> Any:
        """pi(x_T), the stationary distribution, for arrays of this shape."""
        return self.family.prior(shape)

    def transition(self, x_s: Array, s: ArrayLike, t: ArrayLike) -> Any:
        """The forward transition q(x_t | x_s), for s < t."""
        return self.family.transition(self.schedule, x_s, s, t)

    def posterior(self, x_t: Array, x_0: Any, t: ArrayLike, s: ArrayLike, eta: ArrayLike = 1.0) -> Any:
        """The posterior q(x_s | x_t, x_0), for s < t; with eta < 1 that of Song et al. 2021, Eq. 7, with less variance.

        x_0 is an array; for a binomial process also a Bernoulli. A binomial process raises ValueError unless eta is 1.
        """
        return self.family.posterior(self.schedule, x_t, x_0, t, s, eta)

    def require_gaussian(self, method: str, signal: bool = False) -> None:
        """Raises ValueError, which names the method, unless the process is Gaussian.

        With `signal` also if alpha_bar_T is 0, unless the schedule is traced.
        """
        if self.family.name != "gaussian":
            raise ValueError(
                f"{method} needs a Gaussian process, this one is {self.family.name}: use ancestral sampling"
            )
        last = self.schedule.alpha_bar[-1]
        if signal and not isinstance(last, Tracer) and float(last) == 0:
            raise ValueError(f"{method} divides by alpha_bar_T, which is 0 in this schedule: use ddim or ancestral")

    def log_likelihood(self, dist: Any, x_0: Array) -> Array:
        """log p(x_0 | x_1) under ``dist`` = p(x_0 | x_1), in nats, element by element."""
        return self.family.log_likelihood(dist, x_0)

    def marginal(self, x_0: Float[Array, "..."], t: ArrayLike) -> Distribution:
        """The marginal q(x_t | x_0), for t > 0 (Ho et al. 2020, Eq. 4)."""
        return self.transition(x_0, 0, t)


class Rules(NamedTuple):
    """The functions of a parameterization, for any process, which is their first argument."""

    error: Callable[..., Array]
    """``error(process, output, x_0, noise, t)`` -> the training error, element by element."""
    x_0: Callable[..., Array]
    """``x_0(process, output, x_t, t)`` -> the estimate of E[x_0 | x_t]."""
    kernel: Callable[..., Any]
    """``kernel(process, output, x_t, t, s)`` -> p(x_s | x_t), for s < t."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Parameterization:
    """What the output of a network means, for t in [1, T]: a process, and the rules that interpret the output.

    Make one with `parameterizations.eps` or another function of that module. A Parameterization is a pytree, whose
    leaves are those of the schedule. A jitted function with one as argument is compiled anew for other rules, but not
    for other values of the schedule: see `Process`.
    """

    process: Process
    rules: Rules = field(metadata={"static": True})
    name: str = field(default="custom", metadata={"static": True})
    """The name of the function that made the parameterization, such as "eps"."""
    variance: Variance | None = field(default=None, metadata={"static": True})
    """The fixed variance of the kernel, such as `parameterizations.fixed_small`. None if the variance is learned or
    measured, and for bits."""
    clip: tuple[float, float] | None = field(default=None, metadata={"static": True})
    """(low, high), the range that estimates of x_0 are clipped to; None if they are not clipped."""
    single_steps: bool = field(default=False, metadata={"static": True})
    """Whether the variance of the kernel is known for steps from t to t - 1 only, as where the network outputs it. The
    variance of any other step is then NaN."""
    unclipped_rules: Rules | None = field(default=None, metadata={"static": True})
    """The rules without clipping; None if `rules` do not clip."""
    learned: str | None = field(default=None, metadata={"static": True})
    """The name of the function that made the network output the variance, such as "learned_range"; None if it does not.
    """
    chosen_variance: Variance | None = None
    """The variance in place of that of `rules`, a `jax.tree_util.Partial`: its arrays are leaves, so that a program is
    compiled once for all their values. See `parameterizations.with_variance`."""

    def error(self, output: Array, x_0: Array, noise: Array, t: ArrayLike) -> Array:
        """The training error, element by element: (output - target)^2; for bits, the cross-entropy in nats.

        Ho et al. 2020, Eq. 14, where the target is the noise.
        """
        return self.rules.error(self.process, output, x_0, noise, t)

    def x_0(self, output: Array, x_t: Array, t: ArrayLike) -> Array:
        """The estimate of E[x_0 | x_t], of the shape of x_t (Ho et al. 2020, Eq. 15)."""
        return self.rules.x_0(self.process, output, x_t, t)

    def kernel(self, output: Array, x_t: Array, t: ArrayLike, s: ArrayLike) -> Any:
        """The kernel p(x_s | x_t), for s < t (Ho et al. 2020, Eq. 11, where s = t - 1)."""
        kernel = self.rules.kernel(self.process, output, x_t, t, s)
        if self.chosen_variance is None:
            return kernel
        return kernel._replace(variance=self.chosen_variance(self.process.schedule, t, s, x_t.ndim))

    def unclipped(self) -> "Parameterization":
        """The same parameterization without clipping of x_0."""
        if self.unclipped_rules is None:
            return self
        return dataclasses.replace(self, rules=self.unclipped_rules, clip=None, unclipped_rules=None)


class Sampler(NamedTuple):
    """A rule for one step of sampling, from x_t to x_s. Its memory passes values from step to step."""

    init: Callable[[Array], Any]
    """``init(x_T)`` -> memory: any pytree of arrays, or None."""
    step: Callable[[Array, Array, Any, Array, Array], tuple[Array, Any]]
    """``step(keys, x_t, memory, t, s)`` -> (x_s, memory), with one key per example, [batch], and scalars t and s."""
    single_steps: bool = False
    """Whether steps towards the data must be from t to t - 1: see `Parameterization.single_steps`."""
