"""The history of a train step: what the loss has seen, in the order of the batch, however the batch is split."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import EMA, accumulate, checkpoints, clip_in_parts, create, make_train_step

OPTIMIZER = optax.sgd(0.1)
DATA = {"x": jnp.sin(jnp.arange(48.0)).reshape(16, 3)}


def loss_fn(params, key, batch, history):
    """A loss that depends on the history and has seen a row of numbers for each example."""
    losses = jnp.square(batch["x"] @ params["w"]) * (1 + history.sum())
    return losses.mean(), {"x": batch["x"], "loss": losses}


def remember(history, seen):
    return history + seen["x"] * seen["loss"][:, None]


def state():
    return create({"w": jnp.arange(1.0, 4.0)}, OPTIMIZER, history=jnp.zeros((16, 3)))


def stepped(gradient, skip_nan=False, data=DATA, steps=2):
    step = jax.jit(make_train_step(loss_fn, OPTIMIZER, {EMA: 0.9}, jax.random.key(0), gradient, skip_nan, remember))
    result = state()
    for _ in range(steps):
        result, metrics = step(result, data)
    return result, metrics


@pytest.mark.parametrize(
    "gradient",
    [
        accumulate(4, jax.value_and_grad),
        clip_in_parts(4, max_norm=1e9),
        accumulate(2, clip_in_parts(4, max_norm=1e9)),
    ],
    ids=["accumulated", "clipped in parts", "both"],
)
def test_a_batch_in_parts_has_the_history_of_the_whole(gradient):
    whole, parts = stepped(jax.value_and_grad), stepped(gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), parts, whole)


def test_the_next_step_is_given_the_history():
    first, _ = stepped(jax.value_and_grad, steps=1)
    losses = jnp.square(DATA["x"] @ state().params["w"])
    np.testing.assert_allclose(first.history, DATA["x"] * losses[:, None], rtol=1e-5)
    _, metrics = stepped(jax.value_and_grad)
    loss, _ = loss_fn(first.params, None, DATA, first.history)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)


def test_a_skipped_step_leaves_no_trace_in_the_history():
    bad = {"x": DATA["x"].at[3, 1].set(jnp.nan)}
    result, metrics = stepped(jax.value_and_grad, skip_nan=True, data=bad)
    assert float(metrics["skipped"]) == 1 and int(result.step) == 2
    np.testing.assert_array_equal(result.history, state().history)


def test_a_checkpoint_without_a_history_loads_and_one_whose_history_is_lost_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PAUSES", ())
    older, now = create({"w": jnp.zeros(3)}, OPTIMIZER)._replace(step=jnp.int32(1)), state()._replace(step=jnp.int32(2))
    with checkpoints.manager(tmp_path / "checkpoints") as manager:
        checkpoints.save(manager, older)
        checkpoints.save(manager, now)
    with checkpoints.manager(tmp_path / "checkpoints") as manager:
        assert checkpoints.restore(manager, state()).history is not None
        for path in (tmp_path / "checkpoints" / "2" / "more").iterdir():
            path.rename(tmp_path / path.name)
        found = checkpoints.restore(manager, state())
    assert int(found.step) == 1 and found.history is None


def test_a_checkpoint_without_the_averages_is_not_taken_for_one_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "PAUSES", ())
    with checkpoints.manager(tmp_path / "checkpoints") as manager:
        checkpoints.save(manager, create({"w": jnp.zeros(3)}, OPTIMIZER))
        manager.wait_until_finished()
        with pytest.raises(ValueError, match="none of the checkpoints"):
            checkpoints.restore(manager, create({"w": jnp.zeros(3)}, OPTIMIZER, (EMA, "power_0.1")))
