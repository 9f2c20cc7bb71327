"""One optimisation step, and several of them in one call over data that stay on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ddpm_jax.training.state import TrainState

LossFn = Callable[[Any, Array, Any], Float[Array, ""]]
"""``(params, key, batch)`` -> the mean loss of the batch."""
ValueAndGrad = Callable[[Any, Array, Any], tuple[Float[Array, ""], Any]]
"""``(params, key, batch)`` -> (loss, gradient)."""
Metrics = dict[str, Float[Array, "..."]]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]


def ema_ramp(decay: float) -> optax.Schedule:
    """The decay of an average that forgets its start: ``(1 + step) / (10 + step)`` until that reaches `decay`.

    For runs of fewer steps than a constant decay takes to leave the initial parameters behind, a few times
    ``1 / (1 - decay)``. Ho et al. 2020 ramp nothing.
    """
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def clip_in_parts(parts: int, max_norm: float = 1.0) -> Callable[[LossFn], ValueAndGrad]:
    """In place of `jax.value_and_grad`: the batch in so many equal parts, the gradient of each clipped, and their mean.

    What the released code of Ho et al. 2020 does, where a part is a replica's. The parts lie on the devices as the
    batch does; a device that holds several holds as many gradients. Raises ValueError for a batch that does not divide.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def value_and_grad(loss_fn: LossFn) -> ValueAndGrad:
        def part(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            loss, grads = jax.value_and_grad(loss_fn)(params, key, batch)
            return loss, clip.update(grads, optax.EmptyState())[0]

        def whole(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            batches = jax.tree.map(lambda x: x.reshape(parts, _each(x, parts), *x.shape[1:]), batch)
            each = jax.vmap(part, (None, 0, 0))(params, jax.random.split(key, parts), batches)
            return jax.tree.map(lambda x: x.mean(axis=0), each)

        return whole

    return value_and_grad


def _each(x: Array, parts: int) -> int:
    """The examples in one of so many parts of the batch."""
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} does not divide into {parts} parts: choose a multiple of them")
    return x.shape[0] // parts


def accumulate(parts: int, gradient: Callable[[LossFn], ValueAndGrad]) -> Callable[[LossFn], ValueAndGrad]:
    """`gradient` of the batch in so many equal parts, one after the other, and their mean: less memory, more time.

    Each part is drawn noise of its own, so that the numbers are those of another draw. It takes every so many-th
    example, which leaves all where they lie. Raises ValueError for a batch that does not divide.
    """

    def value_and_grad(loss_fn: LossFn) -> ValueAndGrad:
        one = gradient(loss_fn)

        def whole(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            dealt = jax.tree.map(lambda x: x.reshape(_each(x, parts), parts, *x.shape[1:]).swapaxes(0, 1), batch)

            def body(total, part):
                return jax.tree.map(jnp.add, total, one(params, *part)), None

            zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            total, _ = jax.lax.scan(body, zero, (jax.random.split(key, parts), dealt))
            return jax.tree.map(lambda x: x / parts, total)

        return whole

    return value_and_grad


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    ema_decay: optax.ScalarOrSchedule,
    seed: int,
    gradient: Callable[[LossFn], ValueAndGrad] = jax.value_and_grad,
    skip_nan: bool = False,
) -> Step:
    """``(state, batch)`` -> (state, metrics). The key is ``fold_in(key(seed), step)``: a resumed run is the same run.

    `ema_decay` is a number or, as `ema_ramp` gives, a function of the step. The metrics are "loss" and "grad_norm", the
    global norm of what the optimizer is given, which may clip it. With `skip_nan` a step whose loss or gradient is not
    finite changes nothing but the number of the step, and the metric "skipped" is 1 there.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, grads = gradient(loss_fn)(state.params, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay(state.step) if callable(ema_decay) else ema_decay
        ema = optax.incremental_update(params, state.ema, 1 - decay)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        stepped = TrainState(state.step + 1, params, ema, opt_state)
        if skip_nan:
            good = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
            stayed = state._replace(step=stepped.step)
            stepped = jax.tree.map(lambda new, old: jnp.where(good, new, old), stepped, stayed)
            metrics["skipped"] = 1.0 - good
        return stepped, metrics

    return step


def gather_steps(step: Step) -> Callable[[TrainState, Any, Int[Array, "count batch"]], tuple[TrainState, Metrics]]:
    """``(state, data, index)``: one step a row of `index`, the batch gathered from `data` on the device; a `lax.scan`.

    The metrics come stacked, [count].
    """

    def steps(state: TrainState, data: Any, index: Int[Array, "count batch"]) -> tuple[TrainState, Metrics]:
        def body(state, rows):
            return step(state, jax.tree.map(lambda feature: feature[rows], data))

        if len(index) == 1:  # a scan of one is still a loop to XLA, and on CPU a slow one
            state, metrics = body(state, index[0])
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(body, state, index)

    return steps
