"""The train step, and several train steps in one call with data that stay on the device."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ddpm_jax.training.state import TrainState

LossFn = Callable[[Any, Array, Any], Float[Array, ""]]
"""``loss_fn(params, key, batch)`` -> the mean loss of the batch."""
ValueAndGrad = Callable[[Any, Array, Any], tuple[Float[Array, ""], Any]]
"""``value_and_grad(params, key, batch)`` -> (loss, gradient)."""
Metrics = dict[str, Float[Array, "..."]]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
"""``step(state, batch)`` -> (state, metrics)."""


def ema_ramp(decay: float) -> optax.Schedule:
    """An EMA decay that starts small and rises to `decay`: ``min(decay, (1 + step) / (10 + step))``.

    For runs that are shorter than a few times ``1 / (1 - decay)`` steps, in which the average with a constant decay
    would keep much of the initial parameters. Ho et al. 2020 use a constant decay.
    """
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def clip_in_parts(parts: int, max_norm: float = 1.0) -> Callable[[LossFn], ValueAndGrad]:
    """Like `jax.value_and_grad`, but splits the batch into parts, clips each part's gradient, and averages them.

    The released code of Ho et al. 2020 does so: a part is the share of one replica. Each gradient is clipped to the
    global norm `max_norm`. Parts are contiguous, like the devices' shares of the batch; a device stores one gradient
    for each of its parts. Raises ValueError for a batch size that is not a multiple of `parts`.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def value_and_grad(loss_fn: LossFn) -> ValueAndGrad:
        def part(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            loss, grads = jax.value_and_grad(loss_fn)(params, key, batch)
            return loss, clip.update(grads, optax.EmptyState())[0]

        def whole(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            batches = jax.tree.map(lambda x: x.reshape(parts, _part_size(x, parts), *x.shape[1:]), batch)
            each = jax.vmap(part, (None, 0, 0))(params, jax.random.split(key, parts), batches)
            return jax.tree.map(lambda x: x.mean(axis=0), each)

        return whole

    return value_and_grad


def _part_size(x: Array, parts: int) -> int:
    """The number of examples in a part of the batch."""
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} does not divide into {parts} parts: choose a multiple of {parts}")
    return x.shape[0] // parts


def accumulate(parts: int, gradient: Callable[[LossFn], ValueAndGrad]) -> Callable[[LossFn], ValueAndGrad]:
    """Gradient accumulation: computes `gradient` on parts of the batch, one after the other, and averages the results.

    Takes less memory and more time. Each part has its own key, so results differ from those of the unsplit batch. Parts
    are strided, so no data moves between devices. Raises ValueError for a batch size that is not a multiple of `parts`.
    """

    def value_and_grad(loss_fn: LossFn) -> ValueAndGrad:
        one = gradient(loss_fn)

        def whole(params: Any, key: Array, batch: Any) -> tuple[Array, Any]:
            strided = jax.tree.map(lambda x: x.reshape(_part_size(x, parts), parts, *x.shape[1:]).swapaxes(0, 1), batch)

            def body(total, part):
                return jax.tree.map(jnp.add, total, one(params, *part)), None

            zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            total, _ = jax.lax.scan(body, zero, (jax.random.split(key, parts), strided))
            return jax.tree.map(lambda x: x / parts, total)

        return whole

    return value_and_grad


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    decays: Mapping[str, optax.ScalarOrSchedule],
    root_key: Array,
    gradient: Callable[[LossFn], ValueAndGrad] = jax.value_and_grad,
    skip_nan: bool = False,
) -> Step:
    """The train step ``step(state, batch)`` -> (state, metrics), which can be jitted.

    The random key of a step is ``fold_in(root_key, state.step)``, so runs can be resumed. `decays` has the decay of
    each average of the state: a number, or a function of the step, such as the result of `ema_ramp`. The metrics are
    "loss" and "grad_norm", the global norm of the gradient before the optimizer, which may clip it. With `skip_nan` a
    step whose loss or gradient is not finite changes only the step number; the metric "skipped" is 1 in such a step,
    else 0.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root_key, state.step)
        loss, grads = gradient(loss_fn)(state.params, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = {name: _average(params, state.averages[name], decays[name], state.step) for name in state.averages}
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        stepped = state._replace(step=state.step + 1, params=params, averages=averages, opt_state=opt_state)
        if skip_nan:
            good = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
            unchanged = state._replace(step=stepped.step)
            stepped = jax.tree.map(lambda new, old: jnp.where(good, new, old), stepped, unchanged)
            metrics["skipped"] = 1.0 - good
        return stepped, metrics

    return step


def _average(params: Any, average: Any, decay: optax.ScalarOrSchedule, step: Array) -> Any:
    return optax.incremental_update(params, average, 1 - (decay(step) if callable(decay) else decay))


def gather_steps(step: Step) -> Callable[[TrainState, Any, Int[Array, "count batch"]], tuple[TrainState, Metrics]]:
    """The function ``steps(state, data, index)`` -> (state, metrics): one `step` per row of `index`, in one `lax.scan`.

    The batch of a step is gathered from `data` on the device: the rows of its arrays with the indices in that row of
    `index`. The metrics are stacked, [count].
    """

    def steps(state: TrainState, data: Any, index: Int[Array, "count batch"]) -> tuple[TrainState, Metrics]:
        def body(state, rows):
            return step(state, jax.tree.map(lambda feature: feature[rows], data))

        if len(index) == 1:  # XLA would compile a scan of one step as a loop, which is slow on CPU
            state, metrics = body(state, index[0])
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(body, state, index)

    return steps
