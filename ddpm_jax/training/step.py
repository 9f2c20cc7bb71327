"""The train step, and several train steps in one call with data that stay on the device."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from ddpm_jax.training.averages import Decay, averaged
from ddpm_jax.training.state import TrainState

LossFn = Callable[..., Any]
"""``loss_fn(params, key, batch)`` -> the mean loss of the batch.

With a history ``loss_fn(params, key, batch, history)`` -> (mean loss, seen), where the arrays of `seen` have a row for
each example.
"""
ValueAndGrad = Callable[[Any, Array, Any], tuple[Any, Any]]
"""``value_and_grad(params, key, batch)`` -> (loss, gradient), or ((loss, seen), gradient)."""
Gradient = Callable[..., ValueAndGrad]
"""``gradient(loss_fn, has_aux=False)`` -> ValueAndGrad, as `jax.value_and_grad`; with `has_aux` there is `seen`."""
Metrics = dict[str, Float[Array, "..."]]
Step = Callable[[TrainState, Any], tuple[TrainState, Metrics]]
"""``step(state, batch)`` -> (state, metrics)."""


def clip_in_parts(parts: int, max_norm: float = 1.0) -> Gradient:
    """Like `jax.value_and_grad`, but splits the batch into parts, clips each part's gradient, and averages them.

    The released code of Ho et al. 2020 does so: a part is the share of one replica. Each gradient is clipped to the
    global norm `max_norm`. Parts are contiguous, like the devices' shares of the batch; a device stores one gradient
    for each of its parts. Raises ValueError for a batch size that is not a multiple of `parts`.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def value_and_grad(loss_fn: LossFn, has_aux: bool = False) -> ValueAndGrad:
        def part(params: Any, key: Array, batch: Any) -> tuple[Any, Any]:
            value, grads = jax.value_and_grad(loss_fn, has_aux=has_aux)(params, key, batch)
            return value, clip.update(grads, optax.EmptyState())[0]

        def whole(params: Any, key: Array, batch: Any) -> tuple[Any, Any]:
            batches = jax.tree.map(lambda x: x.reshape(parts, _part_size(x, parts), *x.shape[1:]), batch)
            value, grads = jax.vmap(part, (None, 0, 0))(params, jax.random.split(key, parts), batches)
            loss, seen = value if has_aux else (value, None)
            mean = jax.tree.map(lambda x: x.mean(axis=0), (loss, grads))
            return _value(mean[0], jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), seen), has_aux), mean[1]

        return whole

    return value_and_grad


def _value(loss: Array, seen: Any, has_aux: bool) -> Any:
    """The value of a loss function, with `seen` if it has one."""
    return (loss, seen) if has_aux else loss


def _part_size(x: Array, parts: int) -> int:
    """The number of examples in a part of the batch."""
    if x.shape[0] % parts:
        raise ValueError(f"a batch of {x.shape[0]} does not divide into {parts} parts: choose a multiple of {parts}")
    return x.shape[0] // parts


def accumulate(parts: int, gradient: Gradient) -> Gradient:
    """Gradient accumulation: computes `gradient` on parts of the batch, one after the other, and averages the results.

    Takes less memory and more time. Each part has its own key, so results differ from those of the unsplit batch. Parts
    are strided, so no data moves between devices. Raises ValueError for a batch size that is not a multiple of `parts`.
    """

    def value_and_grad(loss_fn: LossFn, has_aux: bool = False) -> ValueAndGrad:
        one = gradient(loss_fn, has_aux=True) if has_aux else gradient(loss_fn)

        def whole(params: Any, key: Array, batch: Any) -> tuple[Any, Any]:
            strided = jax.tree.map(lambda x: x.reshape(_part_size(x, parts), parts, *x.shape[1:]).swapaxes(0, 1), batch)

            def body(total, part):
                value, grads = one(params, *part)
                loss, seen = value if has_aux else (value, None)
                return jax.tree.map(jnp.add, total, (loss, grads)), seen

            zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
            total, seen = jax.lax.scan(body, zero, (jax.random.split(key, parts), strided))
            loss, grads = jax.tree.map(lambda x: x / parts, total)
            seen = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), seen)  # as in the batch
            return _value(loss, seen, has_aux), grads

        return whole

    return value_and_grad


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    decays: Mapping[str, Decay],
    root_key: Key[Array, ""],
    gradient: Gradient = jax.value_and_grad,
    skip_nan: bool = False,
    remember: Callable[[Any, Any], Any] | None = None,
) -> Step:
    """The train step ``step(state, batch)`` -> (state, metrics), which can be jitted.

    The random key of a step is ``fold_in(root_key, state.step)``, so runs can be resumed. `decays` has the decay of
    each average of the state: a number, a function of the step, such as the result of `averages.ema_ramp`, or an
    `averages.Power`. The metrics are "loss" and "grad_norm", the global norm of the gradient before the optimizer,
    which may clip it. With `skip_nan` a step whose loss or gradient is not finite changes only the step number; the
    metric "skipped" is 1 in such a step, else 0. With `remember` the loss function is given the history of the state,
    and the next history is ``remember(history, seen)``.
    """

    def value_and_grads(state: TrainState, key: Array, batch: Any) -> tuple[Any, Any, Any]:
        if remember is None:
            return *gradient(loss_fn)(state.params, key, batch), state.history
        recorded = gradient(partial(loss_fn, history=state.history), has_aux=True)
        (loss, seen), grads = recorded(state.params, key, batch)
        return loss, grads, remember(state.history, seen)

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root_key, state.step)
        loss, grads, history = value_and_grads(state, key, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averages = {name: averaged(params, old, decays[name], state.step) for name, old in state.averages.items()}
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        stepped = TrainState(state.step + 1, params, averages, opt_state, history)
        if skip_nan:
            good = jnp.isfinite(loss) & jnp.isfinite(metrics["grad_norm"])
            unchanged = state._replace(step=stepped.step)
            stepped = jax.tree.map(lambda new, old: jnp.where(good, new, old), stepped, unchanged)
            metrics["skipped"] = 1.0 - good
        return stepped, metrics

    return step


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
