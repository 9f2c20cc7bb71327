"""Training: what a step does, that devices and scans do not matter, and what is logged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import (
    EMA,
    Log,
    clip_in_parts,
    create,
    ema_ramp,
    gather_steps,
    make_train_step,
    sharding,
)

OPTIMIZER = optax.sgd(0.1)


def loss_fn(params, key, batch):
    noise = jax.random.normal(key, batch["x"].shape)
    return jnp.square(batch["x"] @ params["w"] + 0.01 * noise.sum()).mean()


def state():
    return create({"w": jnp.arange(1.0, 4.0)}, OPTIMIZER)


DATA = {"x": jnp.sin(jnp.arange(48.0)).reshape(16, 3)}


def test_average_follows_at_its_decay():
    step = make_train_step(loss_fn, OPTIMIZER, {EMA: 0.75}, jax.random.key(0))
    after, metrics = step(state(), DATA)
    moved = 0.75 * state().params["w"] + 0.25 * after.params["w"]
    np.testing.assert_allclose(after.averages[EMA]["w"], moved, rtol=1e-6)
    np.testing.assert_allclose(after.params["w"], state().params["w"] - 0.1 * _gradient(), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(_gradient()), rtol=1e-5)


def test_a_ramped_average_forgets_where_it_started():
    """At parameters that stand still, what is left of the start is the product of the decays."""

    def still(params, key, batch):
        return 0.0 * params["w"].sum()

    def left(decay, steps):
        step = make_train_step(still, optax.sgd(0.0), {EMA: decay}, jax.random.key(0))
        start = create({"w": jnp.zeros(3)}, optax.sgd(0.0))._replace(averages={EMA: {"w": jnp.ones(3)}})
        end, _ = jax.lax.scan(lambda state, _: step(state, None), start, length=steps)
        return float(end.averages[EMA]["w"][0])

    assert left(0.999, 100) == pytest.approx(0.999**100, rel=1e-4)
    assert left(ema_ramp(0.999), 100) < 1e-6
    # the ramp to 0.5 ends at step 8, where (1 + 8) / (10 + 8) = 0.5: from there on it decays as a constant one
    assert left(ema_ramp(0.5), 12) == pytest.approx(left(ema_ramp(0.5), 9) * 0.5**3, rel=1e-4)


def _gradient():
    key = jax.random.fold_in(jax.random.key(0), 0)
    return np.asarray(jax.grad(loss_fn)(state().params, key, DATA)["w"])


def test_steps_in_one_call_are_steps_one_by_one():
    step = make_train_step(loss_fn, OPTIMIZER, {EMA: 0.9}, jax.random.key(3))
    rows = np.arange(16, dtype=np.int32).reshape(4, 4)
    together, metrics = jax.jit(gather_steps(step))(state(), DATA, jnp.asarray(rows))
    single, losses = state(), []
    for row in rows:
        single, one = jax.jit(gather_steps(step))(single, DATA, jnp.asarray(row[None]))
        losses.append(one["loss"][0])
    np.testing.assert_allclose(together.params["w"], single.params["w"], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss"], np.stack(losses), rtol=1e-5)
    assert int(together.step) == 4


def test_one_device_is_eight():
    """The draws are of the global batch, so the mesh decides nothing but the order of a sum."""
    mesh = sharding.make_mesh()
    assert mesh.shape == {"data": 8, "fsdp": 1}
    step = jax.jit(make_train_step(loss_fn, OPTIMIZER, {EMA: 0.9}, jax.random.key(1)))
    alone, _ = step(state(), DATA)
    spread = sharding.to_devices(DATA, sharding.batch_sharding(mesh))
    many, _ = step(sharding.to_devices(state(), sharding.replicated(mesh)), spread)
    assert len(spread["x"].sharding.device_set) == 8
    np.testing.assert_allclose(alone.params["w"], many.params["w"], rtol=1e-6)


def test_gradients_clipped_in_parts_are_the_mean_of_the_parts_own():
    """With a bound no part reaches they are the plain gradient; with a small one, each part counts by its direction."""

    def quiet(params, key, batch):
        return jnp.square(batch["x"] @ params["w"]).mean()

    params = state().params
    loss, plain = jax.value_and_grad(quiet)(params, jax.random.key(0), DATA)
    same_loss, wide = clip_in_parts(4, max_norm=1e6)(quiet)(params, jax.random.key(0), DATA)
    np.testing.assert_allclose([same_loss, *wide["w"]], [loss, *plain["w"]], rtol=1e-5)
    parts = [jax.grad(quiet)(params, jax.random.key(0), {"x": DATA["x"][4 * i : 4 * i + 4]})["w"] for i in range(4)]
    expected = np.mean([0.1 * part / np.linalg.norm(part) for part in parts], axis=0)
    np.testing.assert_allclose(
        clip_in_parts(4, max_norm=0.1)(quiet)(params, jax.random.key(0), DATA)[1]["w"], expected, rtol=1e-5
    )
    with pytest.raises(ValueError, match="a batch of 16 does not divide into 5 parts"):
        clip_in_parts(5)(quiet)(params, jax.random.key(0), DATA)


def test_parts_are_the_shares_of_the_devices():
    step = jax.jit(make_train_step(loss_fn, OPTIMIZER, {EMA: 0.9}, jax.random.key(1), clip_in_parts(8)))
    alone, _ = step(state(), DATA)
    mesh = sharding.make_mesh()
    many, _ = step(
        sharding.to_devices(state(), sharding.replicated(mesh)),
        sharding.to_devices(DATA, sharding.batch_sharding(mesh)),
    )
    np.testing.assert_allclose(alone.params["w"], many.params["w"], rtol=1e-6)


def test_a_log_opened_again_forgets_the_future(tmp_path):
    with Log(tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.scalars(step, {"loss": step / 7})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 35, "lo')  # cut short by a kill
    with Log(tmp_path, 20) as log:
        log.scalars(30, {"loss": 9.0})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(10, 10 / 7), (20, 20 / 7), (30, 9.0)]


def test_numbers_that_are_not_finite_are_null_in_the_log(tmp_path):
    """JSON has no NaN: strict readers would refuse the file."""

    def refuse(constant):
        raise ValueError(constant)

    with Log(tmp_path, 0) as log:
        log.scalars(10, {"loss": float("nan"), "grad_norm": np.float32(np.inf), "speed": 2.0})
    with Log(tmp_path, 10) as log:  # a resumed run keeps such a row
        log.scalars(20, {"loss": 1.0})
    rows = [json.loads(row, parse_constant=refuse) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"step": 10, "loss": None, "grad_norm": None, "speed": 2.0}, {"step": 20, "loss": 1.0}]
