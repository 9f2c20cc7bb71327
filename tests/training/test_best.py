"""The best checkpoint: that of the least value ever, whatever came between, and whatever its record has become."""

import math

import jax.numpy as jnp
import optax
import pytest

from ddpm_jax.training import best, checkpoints, create


def kept(folder, values, metric="bpd"):
    """The steps that were the best so far, in a run whose values by step are these; the step and value in `folder`."""
    with best.kept(folder, metric) as keep:
        state = create({"w": jnp.arange(3.0)}, optax.sgd(0.1))
        steps = [step for step, value in values.items() if keep(state._replace(step=jnp.int32(step)), value)]
    step = checkpoints.latest_step(folder)
    return steps, step, step and best.recorded(folder, metric)


def test_the_least_value_is_kept_and_a_resumed_run_goes_on_from_it(tmp_path):
    folder = tmp_path / "best"
    assert kept(folder, {1: 3.0, 2: math.nan, 3: 2.0, 4: 5.0, 5: 2.0}) == ([1, 3], 3, 2.0)
    assert kept(folder, {4: 2.5, 5: math.inf}) == ([], 3, 2.0)
    assert kept(folder, {3: 1.0, 6: 1.5}) == ([3], 3, 1.0)  # resumed before it, on other devices
    assert kept(folder, {2: 0.5}) == ([2], 2, 0.5)
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_the_value_of_another_metric_is_not_compared(tmp_path):
    kept(tmp_path / "best", {1: 3.0})
    assert kept(tmp_path / "best", {2: 40.0, 3: 50.0}, metric="frechet") == ([2], 2, 40.0)


@pytest.mark.parametrize("harm", ["", "{}", "nonsense"])
def test_a_damaged_record_is_replaced(tmp_path, harm):
    folder = tmp_path / "best"
    kept(folder, {1: 3.0})
    (folder / "1" / checkpoints.DIGESTS / "metadata").write_text(harm)
    assert kept(folder, {2: 4.0}) == ([2], 2, 4.0)


def test_without_a_metric_nothing_is_kept(tmp_path):
    assert kept(tmp_path / "best", {1: 3.0}, metric=None) == ([], None, None)
    assert not (tmp_path / "best").exists()
