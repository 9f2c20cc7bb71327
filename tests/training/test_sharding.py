"""Meshes, the shardings of arrays on them, and the parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import EMA, accumulate, create, make_train_step, sharding


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
