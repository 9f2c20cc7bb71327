"""The hall: what is made of an experiment keeps the promises of its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.encodings import to_float, to_uint8, truncated
from ddpm_jax.experiment import Experiment, bind, bound_fn, keys, sample_fn
from ddpm_jax.networks import MLP
from ddpm_jax.training import create, make_train_step

PROCESS = gaussian.process(schedules.linear(20, 0.01, 0.3))


class Told(nn.Module):
    """Outputs the index and the label it was told, everywhere."""

    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.zeros_like(x) + (index + (100 * label if label is not None else 0))[:, None, None, None]


def experiment(network=None, **changes) -> Experiment:
    return Experiment(
        **{
            "data": Data("none", (2, 2, 1), open=lambda split: []),
            "process": PROCESS,
            "parameterization": parameterizations.clipped(PROCESS, parameterizations.eps(PROCESS)),
            "network": network or Told(),
            "optimizer": optax.sgd(0.1),
            "batch_size": 4,
            "num_steps": 1,
            "ema_decay": 0.9,
        }
        | changes
    )


def test_a_network_is_told_the_index_that_published_weights_count_from():
    x = jnp.zeros((3, 2, 2, 1))
    outputs = bind(experiment(), {})(x, jnp.array([1, 5, 20]), None)
    np.testing.assert_array_equal(outputs[:, 0, 0, 0], [0, 4, 19])
    np.testing.assert_array_equal(bind(experiment(), {})(x, 7, None)[:, 0, 0, 0], [6, 6, 6])


def test_labels_reach_only_networks_that_have_classes():
    x, label = jnp.zeros((2, 2, 2, 1)), jnp.array([1, 3])
    np.testing.assert_array_equal(bind(experiment(), {})(x, 1, label)[:, 0, 0, 0], [0, 0])
    np.testing.assert_array_equal(bind(experiment(Told(num_classes=4)), {})(x, 1, label)[:, 0, 0, 0], [100, 300])


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_fill_the_range_evenly(levels):
    values = to_float(jnp.arange(levels, dtype=jnp.uint8), levels)
    np.testing.assert_allclose(values, np.linspace(-1, 1, levels), atol=1e-6)
    np.testing.assert_array_equal(to_uint8(values), np.rint(np.linspace(0, 255, levels)))


def test_truncated_samples_are_half_a_level_darker():
    """Between levels evenly spread values round to the nearest and drop to the lower: the mean falls by one half."""
    images = jnp.linspace(-1, 1, 100_001)
    lower = to_uint8(images).astype(float).mean() - truncated().decode(images).astype(float).mean()
    assert lower == pytest.approx(0.5, abs=0.01)
    assert truncated().decode(jnp.array([-9.0, -1, 1, 9])).tolist() == [0, 0, 255, 255]


def test_what_lies_outside_the_range_is_clipped_not_wrapped():
    np.testing.assert_array_equal(to_uint8(jnp.array([-9.0, 9.0])), [0, 255])


def test_a_likelihood_of_other_levels_than_the_data_is_refused():
    with pytest.raises(ValueError, match="17 levels, the likelihood of the process 256"):
        experiment(data=Data("none", (2, 2, 1), open=lambda split: [], levels=17))


def test_keys_are_of_the_image_not_of_the_batch():
    together, late = keys(3, 8), keys(3, 3, start=5)
    np.testing.assert_array_equal(jax.random.key_data(together[5:]), jax.random.key_data(late))
    assert len(np.unique(jax.random.key_data(together), axis=0)) == 8


def test_numbers_alone_compile_nothing_anew():
    sample = jax.jit(sample_fn(experiment()))
    bound = jax.jit(bound_fn(experiment()))
    for seed in range(3):
        batch = {"image": jnp.full((2, 2, 2, 1), seed, jnp.uint8)}
        sample({}, keys(seed, 2))
        bound({}, keys(seed, 2), batch)
    assert sample._cache_size() == bound._cache_size() == 1


def test_a_perceptron_learns_what_can_be_learnt_of_gaussian_points():
    """For x_0 ~ N(0, s^2) the best L_simple is the mean over t of alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar)."""
    variance = np.array([[4.0, 0.25]])
    alpha_bar = np.asarray(PROCESS.schedule.alpha_bar, np.float64)[1:, None]
    best = (alpha_bar * variance / (alpha_bar * variance + 1 - alpha_bar)).mean()
    network, reading = MLP(width=32, depth=2), parameterizations.eps(PROCESS)

    def loss(params, key, batch):
        def output(x_t, t, condition):
            return network.apply({"params": params}, x_t, jnp.broadcast_to(t - 1, x_t.shape[:1]))

        return losses.simple(key, PROCESS, reading, output, batch).mean()

    def train(state, key):
        batch = jax.random.normal(key, (1024, 2)) * jnp.sqrt(jnp.asarray(variance, jnp.float32))
        return step(state, batch)

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    step = make_train_step(loss, optimizer, ema_decay=0.9, seed=0)
    params = network.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))["params"]
    _, metrics = jax.jit(lambda state: jax.lax.scan(train, state, jax.random.split(jax.random.key(9), 600)))(
        create(params, optimizer)
    )
    measured = np.asarray(metrics["loss"])
    error = measured[-200:].std() / np.sqrt(200)
    assert measured[0] > 2 * best
    assert best - 3 * error < measured[-200:].mean() < 1.03 * best
