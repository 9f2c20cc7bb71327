"""Checkpoints: what was saved comes back, damage costs one checkpoint, and those of version 0.1 load."""

import errno
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from benchmarks import damage

from ddpm_jax.training import EMA, checkpoints, create

OPTIMIZER = optax.adam(0.1)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(checkpoints, "PAUSES", (0.0,) * len(checkpoints.PAUSES))


def state(step=0, **changes):
    made = create({"w": jnp.arange(1.0, 4.0)}, OPTIMIZER, **changes)
    return made._replace(
        step=jnp.int32(step), averages={name: {"w": jnp.full(3, float(step))} for name in made.averages}
    )


def saved(tmp_path, *states):
    folder = tmp_path / "checkpoints"
    with checkpoints.manager(folder) as manager:
        for each in states:
            checkpoints.save(manager, each)
    return folder


def garble(folder, step):
    for path in (folder / str(step)).rglob("*"):
        if path.is_file() and path.parent.name == "d":
            os.truncate(path, path.stat().st_size // 2)


def restore(folder, like=None):
    with checkpoints.manager(folder) as manager:
        return checkpoints.restore(manager, like or state())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the checkpoints of steps 1, 2 and 3. Not to be written to."""
    return saved(tmp_path_factory.mktemp("three"), *map(state, (1, 2, 3)))


@pytest.fixture
def three(written, tmp_path):
    """A copy of it, beside which damaged ones may be moved."""
    return shutil.copytree(written, tmp_path / "checkpoints")


def test_the_newest_state_comes_back(three):
    found = restore(three)
    jax.tree.map(np.testing.assert_array_equal, found, state(3))


def test_averages_and_history_come_back(tmp_path):
    """Several averages, and what the loss keeps from step to step."""
    full = state(5, averages=(EMA, "power_0.05"), history={"losses": jnp.arange(6.0)})
    found = restore(saved(tmp_path, full), full)
    assert found.averages.keys() == {EMA, "power_0.05"}
    jax.tree.map(np.testing.assert_array_equal, found, full)


def test_a_checkpoint_of_version_0_1_loads(tmp_path):
    """Its items are the average, and a dictionary of the rest with an empty "ema"."""
    old, folder = state(7), tmp_path / "checkpoints"
    rest = {"step": old.step, "params": old.params, "ema": None, "opt_state": old.opt_state}
    with ocp.CheckpointManager(folder) as manager:
        ema = ocp.args.StandardSave(old.averages[EMA])
        manager.save(7, args=ocp.args.Composite(ema=ema, rest=ocp.args.StandardSave(rest)))
    jax.tree.map(np.testing.assert_array_equal, restore(folder), old)


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_is_kept(three, tmp_path, caplog):
    garble(three, 3)
    assert int(restore(three).step) == 2
    assert "checkpoint 3 cannot be read" in caplog.text
    assert [path.name.split("-")[0] for path in (tmp_path / "damaged").iterdir()] == ["3"]
    with checkpoints.manager(three) as manager:  # the way is free for a new 3
        checkpoints.save(manager, state(3))
    assert int(restore(three).step) == 3


def test_if_all_are_damaged_nothing_is_moved(three):
    for step in (1, 2, 3):
        garble(three, step)
    with pytest.raises(ValueError, match=r"none of the checkpoints in .* can be read"):
        restore(three)
    assert sorted(path.name for path in three.iterdir()) == ["1", "2", "3"]


def test_samplers_restore_the_average_and_change_nothing(three, tmp_path):
    garble(three, 3)
    with checkpoints.reader(three) as manager:
        ema, step = checkpoints.restore_parameters(manager, state(), "ema")
        raw, _ = checkpoints.restore_parameters(manager, state(), "raw")
    assert step == 2 and (ema["w"] == 2).all()
    np.testing.assert_array_equal(raw["w"], state(2).params["w"])
    assert not (tmp_path / "damaged").exists()


def test_random_damages_are_found_or_harmless():
    """Twenty of those that the benchmark makes, among them flipped bits and files swapped between checkpoints."""
    assert damage.main(damage.Options(num=20)) == 0


def failing(monkeypatch, error, times):
    """Lets the first reads of a checkpoint fail."""
    read, calls = ocp.StandardCheckpointHandler.restore, []

    def restore(*args, **kwargs):
        calls.append(1)
        if len(calls) <= times:
            raise error
        return read(*args, **kwargs)

    monkeypatch.setattr(ocp.StandardCheckpointHandler, "restore", restore)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EIO, errno.ENOENT])
def test_an_error_that_passes_is_no_damage(three, tmp_path, monkeypatch, number):
    failing(monkeypatch, OSError(number, os.strerror(number)), times=1)
    assert int(restore(three).step) == 3
    assert not (tmp_path / "damaged").exists()


def test_an_error_that_stays_is_damage(three, monkeypatch):
    failing(monkeypatch, OSError(errno.EIO, os.strerror(errno.EIO)), times=1 + len(checkpoints.PAUSES))
    assert int(restore(three).step) == 2


def test_lack_of_memory_is_no_damage(three, monkeypatch):
    failing(monkeypatch, jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), times=100)
    with pytest.raises(jax.errors.JaxRuntimeError):
        restore(three)
    assert sorted(path.name for path in three.iterdir()) == ["1", "2", "3"]


def lose_the_folder(digests):
    shutil.rmtree(digests)


def lose_a_name(digests):
    record = json.loads((digests / "metadata").read_text())
    record["arrays"].popitem()
    (digests / "metadata").write_text(json.dumps(record))


def empty(digests):
    (digests / "metadata").write_text("{}")


@pytest.mark.parametrize("harm", [lose_the_folder, lose_a_name, empty])
def test_a_checkpoint_whose_digests_are_lost_is_damaged(three, harm):
    harm(three / "3" / checkpoints.DIGESTS)
    assert int(restore(three).step) == 2


def test_a_checkpoint_under_the_number_of_another_step_is_damaged(three):
    shutil.rmtree(three / "3")
    shutil.copytree(three / "1", three / "3")
    with checkpoints.reader(three) as manager:
        assert checkpoints.restore_parameters(manager, state(), "ema")[1] == 2


def test_a_state_of_numbers_that_are_not_finite_comes_back(tmp_path):
    """The history of losses by t may start so."""
    full = state(5, history={"losses": jnp.array([jnp.nan, jnp.inf, -0.0])})
    jax.tree.map(np.testing.assert_array_equal, restore(saved(tmp_path, full), full), full)
