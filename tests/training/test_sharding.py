"""Meshes, what lies where on them, parts of a batch, and updates that are left out."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import EMA, Action, Diverged, StopRequest, accumulate, create, fit, make_train_step, sharding


def test_what_a_mesh_leaves_open_goes_to_data():
    assert sharding.make_mesh().shape == {"data": 8, "fsdp": 1}
    assert sharding.make_mesh({"fsdp": 4}).shape == {"data": 2, "fsdp": 4}
    assert sharding.make_mesh(sharding.parse("data=4,fsdp=2")).shape == {"data": 4, "fsdp": 2}


@pytest.mark.parametrize("text", ["data", "data=0", "data=2,data=4", "model=2", "data=-1", "data=2;fsdp=4", ""])
def test_a_mesh_that_is_none_is_told(text):
    with pytest.raises(ValueError, match="data=4,fsdp=2"):
        sharding.parse(text)


@pytest.mark.parametrize("text", ["data=3", "data=8,fsdp=2", "fsdp=16"])
def test_a_mesh_of_other_devices_is_told(text):
    with pytest.raises(ValueError, match=r"does not fit 8 device"):
        sharding.make_mesh(sharding.parse(text))


def test_parameters_are_split_along_their_largest_axis_that_divides():
    mesh = sharding.make_mesh({"fsdp": 4})

    def shard(*shape):
        return sharding.parameter_sharding(shape, mesh, small=16).shard_shape(shape)

    assert shard(3, 3, 64, 128) == (3, 3, 64, 32)
    assert shard(3, 3, 128, 64) == (3, 3, 32, 64)
    assert shard(3, 3, 64, 64) == (3, 3, 64, 16)
    assert shard(3, 3, 64, 6) == (3, 3, 16, 6)
    assert shard(7, 9) == (7, 9)
    assert shard(8) == (8,)  # small


def test_a_state_split_over_fsdp_takes_a_quarter_and_trains_alike():
    def loss_fn(params, key, batch):
        return jnp.square(jnp.tanh(batch["x"] @ params["in"]) @ params["out"] - 1).mean()

    keys = jax.random.split(jax.random.key(0), 3)
    params = {"in": jax.random.normal(keys[0], (32, 64)), "out": jax.random.normal(keys[1], (64, 4))}
    batch = {"x": jax.random.normal(keys[2], (16, 32))}
    optimizer, mesh = optax.adam(0.01), sharding.make_mesh({"fsdp": 4})
    step, whole = make_train_step(loss_fn, optimizer, {EMA: 0.9}, jax.random.key(1)), create(params, optimizer)
    shardings = sharding.shardings(sharding.with_shardings(whole, mesh, small=16))
    split = jax.device_put(whole, shardings)
    assert split.params["in"].addressable_shards[0].data.shape == (32, 16)
    stepped = jax.jit(step, out_shardings=(shardings, None))
    for _ in range(3):
        whole, _ = jax.jit(step)(whole, batch)
        split, _ = stepped(split, sharding.to_devices(batch, sharding.batch_sharding(mesh)))
    assert split.averages[EMA]["in"].addressable_shards[0].data.shape == (32, 16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, split)


def test_rows_of_a_process_are_put_where_they_belong():
    mesh = sharding.make_mesh()
    spread = sharding.batch_sharding(mesh)
    rows = sharding.local_rows(16, spread)
    np.testing.assert_array_equal(rows, np.arange(16))  # one process has all devices
    batch = np.arange(48).reshape(16, 3)
    np.testing.assert_array_equal(sharding.rows_to_devices(batch, rows, 16, spread), batch)


def test_a_batch_in_parts_has_the_gradient_of_the_whole():
    def quiet(params, key, batch):
        return jnp.square(batch["x"] @ params).mean()

    params, batch = jnp.arange(1.0, 4.0), {"x": jnp.sin(jnp.arange(48.0)).reshape(16, 3)}
    expected = jax.value_and_grad(quiet)(params, jax.random.key(0), batch)
    for parts in (1, 4, 16):
        found = accumulate(parts, jax.value_and_grad)(quiet)(params, jax.random.key(0), batch)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    with pytest.raises(ValueError, match="a batch of 16 does not divide into 5 parts"):
        accumulate(5, jax.value_and_grad)(quiet)(params, jax.random.key(0), batch)


def test_the_parts_of_a_batch_have_noise_of_their_own():
    def noisy(params, key, batch):
        return params * jax.random.normal(key, ())

    _, gradient = accumulate(400, jax.value_and_grad)(noisy)(jnp.ones(()), jax.random.key(0), jnp.zeros(400))
    assert abs(gradient) < 4 / 20


def sometimes(params, key, batch):
    """A loss that is no number where the batch says so."""
    return jnp.where(batch > 0, jnp.square(params).sum(), jnp.nan)


def walk(losses, skip_nan, stop_after=None):
    """`fit` over steps whose losses are numbers or not, an action each two steps; the steps that were saved."""
    stop = StopRequest()
    step = jax.jit(make_train_step(sometimes, optax.sgd(0.1), {EMA: 0.9}, jax.random.key(0), skip_nan=skip_nan))
    seen = []

    def advance(state, number):
        state, metrics = step(state, jnp.float32(losses[number]))
        stop.signal = signal.SIGTERM if number + 1 == stop_after else None
        return state, jax.tree.map(lambda x: x[None], metrics)

    state = create(jnp.ones(3), optax.sgd(0.1))
    action = Action(2, lambda number, _, averages: seen.append((number, averages.get("skipped"), averages["loss"])))
    try:
        return fit(state, advance, len(losses), [action], stop), seen
    except Diverged as error:
        return str(error), seen


def test_a_loss_that_is_no_number_stops_before_anything_is_saved():
    printed, seen = walk([1, 1, 1, 0, 1, 1], skip_nan=False)
    assert printed == "the loss is nan at step 4"
    assert [number for number, *_ in seen] == [2]


def test_a_run_stopped_after_a_loss_that_is_no_number_returns_no_state():
    """Between two actions too: the state of a run that is stopped early is saved."""
    printed, seen = walk([1, 1, 0, 1, 1], skip_nan=False, stop_after=3)
    assert printed == "the loss is nan at step 3"
    assert [number for number, *_ in seen] == [2]
    state, _ = walk([1, 1, 1, 1, 1], skip_nan=False, stop_after=3)
    assert int(state.step) == 3


def test_or_is_left_out_and_counted():
    state, seen = walk([1, 1, 1, 0, 0, 0, 1, 1], skip_nan=True)
    plain, _ = walk([1, 1, 1, 1, 1], skip_nan=True)
    assert int(state.step) == 8 and int(plain.step) == 5
    np.testing.assert_allclose(state.params, plain.params)
    np.testing.assert_allclose(state.averages[EMA], plain.averages[EMA])
    assert [(number, skipped) for number, skipped, _ in seen] == [(2, None), (4, 1.0), (6, 2.0), (8, None)]
    assert np.isfinite([loss for *_, loss in seen]).tolist() == [True, True, False, True]
