"""The hall: what is made of an experiment keeps the promises of its parts."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.experiment import Experiment, bound_fn, init_fn, loss_fn, network_fn, shapes, unpack
from ddpm_jax.networks import MLP
from ddpm_jax.runs import experiment_files
from ddpm_jax.sampling import Run, sample_fn
from ddpm_jax.training import EMA, create, make_train_step
from ddpm_jax.training.keys import EVALUATE, INIT, SAMPLE, TRAIN, keys, root_key

PROCESS = gaussian.process(schedules.linear(20, 0.01, 0.3))


class Echo(nn.Module):
    """Outputs index + 100 label in every pixel."""

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
            "network": network or Echo(),
            "optimizer": optax.sgd(0.1),
            "batch_size": 4,
            "num_steps": 1,
            "ema_decay": 0.9,
        }
        | changes
    )


def test_a_network_gets_the_index_of_published_weights():
    x = jnp.zeros((3, 2, 2, 1))
    outputs = network_fn(experiment(), {})(x, jnp.array([1, 5, 20]), None)
    np.testing.assert_array_equal(outputs[:, 0, 0, 0], [0, 4, 19])
    np.testing.assert_array_equal(network_fn(experiment(), {})(x, 7, None)[:, 0, 0, 0], [6, 6, 6])
    np.testing.assert_array_equal(network_fn(experiment(), {})(x, 7.25, None)[:, 0, 0, 0], [6.25] * 3)


def test_labels_reach_only_networks_that_have_classes():
    x, label = jnp.zeros((2, 2, 2, 1)), jnp.array([1, 3])
    np.testing.assert_array_equal(network_fn(experiment(), {})(x, 1, label)[:, 0, 0, 0], [0, 0])
    np.testing.assert_array_equal(network_fn(experiment(Echo(num_classes=4)), {})(x, 1, label)[:, 0, 0, 0], [100, 300])


def test_a_likelihood_of_other_levels_than_the_data_is_refused():
    with pytest.raises(ValueError, match="17 levels, the likelihood of the process 256"):
        experiment(data=Data("none", (2, 2, 1), open=lambda split: [], levels=17))


def test_keys_are_of_the_image_not_of_the_batch():
    together, late = keys(3, 8), keys(3, 3, start=5)
    np.testing.assert_array_equal(jax.random.key_data(together[5:]), jax.random.key_data(late))
    assert len(np.unique(jax.random.key_data(together), axis=0)) == 8


def test_no_two_purposes_share_a_key():
    roots = [jax.random.key_data(root_key(3, purpose)) for purpose in (INIT, TRAIN, SAMPLE, EVALUATE)]
    assert len({tuple(root.tolist()) for root in roots}) == 4


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_of_which_bits_would_be_ignored_are_refused(seed):
    with pytest.raises(ValueError, match=rf"between 0 and 2\^32 - 1, got {seed}"):
        keys(seed, 1)
    assert not np.array_equal(jax.random.key_data(keys(2**32 - 1, 1)), jax.random.key_data(keys(0, 1)))


def labelled(dropout: float) -> Experiment:
    """A loss that is the network's output: the label."""

    def output(key, process, parameterization, network, x_0, condition=None):
        return network(x_0, 1, condition)[:, 0, 0, 0] / 100

    data = Data("none", (2, 2, 1), open=lambda split: [], num_classes=4)
    return experiment(Echo(num_classes=4), data=data, loss=output, label_dropout=dropout)


def test_labels_are_dropped_with_the_probability_of_the_experiment():
    """Label 4 is the row of "no label"; all others are label 1, so the mean loss is 1 + 3 p."""
    batch = {"image": jnp.zeros((20_000, 2, 2, 1), jnp.uint8), "label": jnp.ones(20_000, jnp.int32)}
    for dropout in (0.0, 0.1):
        mean = float(loss_fn(labelled(dropout))({}, jax.random.key(0), batch))
        assert abs(mean - (1 + 3 * dropout)) <= 5 * 3 * np.sqrt(dropout * (1 - dropout) / 20_000)


def test_no_label_is_a_condition_only_where_it_was_trained():
    x = jnp.zeros((2, 2, 2, 1))
    network_fn(labelled(0.1), {})(x, 1, None)
    with pytest.raises(ValueError, match="label_dropout"):
        network_fn(labelled(0.0), {})(x, 1, None)


def test_numbers_alone_compile_nothing_anew():
    """Seeds, and eta: of the sampler there is one program for a whole sweep."""
    made, bound = experiment(), jax.jit(bound_fn(experiment()))
    for seed in range(3):
        batch = {"image": jnp.full((2, 2, 2, 1), seed, jnp.uint8)}
        sample_fn(made, steps=5, eta=seed / 2)({}, keys(seed, 2))
        spacing = (samplers.SPACINGS["karras"], samplers.SPACINGS["logsnr"])[seed % 2]
        sample_fn(made, samplers.multistep, steps=5, eta=seed / 4, spacing=spacing)({}, keys(seed, 2))
        bound({}, keys(seed, 2), batch)
    assert bound._cache_size() == 1
    assert sample_fn(made, eta=0.0).func._cache_size() == 1
    assert sample_fn(made, samplers.multistep).func._cache_size() == 1


def test_a_sweep_of_guidance_is_one_program():
    made = labelled(0.1)
    for guidance in (0.0, 1.5, 4.0):
        sample_fn(made, steps=5, guidance=guidance)({}, keys(0, 2), jnp.array([0, 1]))
    assert sample_fn(made, guidance=2.0).func._cache_size() == 1


def test_a_sweep_of_variances_and_thresholds_is_one_program():
    made = experiment()
    for scale in (0.1, 0.2):
        variance = parameterizations.analytic(scale * np.ones(21, np.float32))
        sample_fn(made, steps=5, variance=variance, threshold=scale)({}, keys(0, 2))
    assert sample_fn(made).func._cache_size() == 1


class Shrunk(nn.Module):
    """Predicts that x_0 is half of x_t."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return x / 2


def test_what_samples_with_a_variance_is_ancestral_sampling_with_it():
    """That of an experiment with this variance, and another than that of its own."""
    made, large = (
        experiment(Shrunk(), parameterization=parameterizations.x0(PROCESS, variance))
        for variance in (parameterizations.fixed_small, parameterizations.fixed_large)
    )
    found = sample_fn(made, steps=5, variance=parameterizations.fixed_large)({}, keys(0, 2))
    np.testing.assert_array_equal(found, sample_fn(large, steps=5)({}, keys(0, 2)))
    assert np.any(np.asarray(found) != sample_fn(made, steps=5)({}, keys(0, 2)))
    with pytest.raises(ValueError, match="--variance: this sampler has none to choose; add --sampler ancestral"):
        sample_fn(made, samplers.ddim, variance=parameterizations.fixed_large)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_is_a_quantile(threshold):
    with pytest.raises(ValueError, match=rf"--threshold must lie in \(0, 1\], got {threshold}"):
        sample_fn(experiment(), threshold=threshold)


def test_guidance_of_1_is_none():
    made, label = labelled(0.1), jnp.array([0, 1])
    plain = sample_fn(made, steps=5)({}, keys(0, 2), label)
    np.testing.assert_array_equal(sample_fn(made, steps=5, guidance=1.0)({}, keys(0, 2), label), plain)


@pytest.mark.parametrize(
    ("made", "guidance", "message"),
    [
        (lambda: experiment(), 2.0, "--guidance 2.0: leave it out, this run is not class-conditional"),
        (lambda: labelled(0.0), 2.0, "--guidance 2.0: this run has never been without a label"),
        (lambda: labelled(0.1), float("nan"), "--guidance must be finite, got nan"),
    ],
)
def test_guidance_that_cannot_be_is_refused(made, guidance, message):
    with pytest.raises(ValueError, match=message):
        sample_fn(made(), guidance=guidance)


class Half(nn.Module):
    """Predicts that every pixel of x_0 is 0.5."""

    num_classes: int | None = None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.full_like(x, 0.5)


CERTAIN = experiment(Half(), parameterization=parameterizations.x0(PROCESS))


@pytest.mark.parametrize("spacing", ["even", "linspace", "logsnr"])
@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_every_sampler_draws_what_the_network_is_certain_of(name, spacing):
    """x_0 = 0.5 in [-1, 1], the level 191 of 0..255, whatever the noise, the order and the times."""
    images = Run(CERTAIN, {}, 0).sampler(steps=4, sampler=name, spacing=spacing)(keys(0, 2))
    np.testing.assert_array_equal(images, np.full((2, 2, 2, 1), 191, np.uint8))


@pytest.mark.parametrize("name", sorted(samplers.SAMPLERS.keys() - {"ancestral"}))
def test_bits_have_the_ancestral_sampler_only(name):
    made = experiment_files.read(experiment_files.find("sohl_dickstein_2015/heartbeat"))(timesteps=6)
    with pytest.raises(ValueError, match="ancestral"):
        jax.eval_shape(sample_fn(made, samplers.SAMPLERS[name], steps=3), init_fn(made)(jax.random.key(0)), keys(0, 2))


def test_eta_is_of_the_samplers_that_have_one():
    with pytest.raises(ValueError, match="this sampler has no eta"):
        sample_fn(experiment(), samplers.ddpm, eta=0.5)
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\], got 2"):
        sample_fn(experiment(), eta=2.0)


def test_a_learned_variance_takes_all_steps_or_ddim():
    """Refused where the sampler is made, before anything is drawn."""
    made = experiment(parameterization=parameterizations.learned(PROCESS, parameterizations.eps(PROCESS)))
    for strided in (lambda: sample_fn(made, steps=5), lambda: Run(made, {}, 0).sampler(steps=5, sampler="ancestral")):
        with pytest.raises(
            ValueError, match=r"--steps 5: .* take all 20 steps, or choose --variance, or --sampler ddim"
        ):
            strided()
    for allowed in ({}, {"steps": 20}, {"steps": 5, "eta": 0.0}, {"steps": 5, "sampler": samplers.ddim}):
        sample_fn(made, **allowed)


def test_weights_and_tables_are_arguments_of_a_sampler_not_constants_in_it():
    """At the size of the digits: the program has no constant of 1 kB, also inside another jitted function."""
    made = experiment_files.read(experiment_files.find("digits"))()
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes(made))
    sample = Run(made, params, 0).sampler(steps=10, eta=0.5)
    inside = jax.jit(lambda sample, keys: sample(keys)).lower(sample, keys(0, 2)).as_text()
    alone = sample.func.lower(*sample.args, keys(0, 2)).as_text()
    for program in (inside, alone):
        constants = re.findall(r"stablehlo\.constant dense<(.*?)> : tensor<([\dx]*)x?[a-z]+\d+>", program)
        sizes = [int(np.prod([int(side) for side in shape.split("x") if side])) for _, shape in constants]
        splats = [not text.startswith(('"', "[")) for text, _ in constants]
        assert constants and all(splat or size <= 256 for size, splat in zip(sizes, splats, strict=True))


def test_a_trained_schedule_is_that_of_the_parameters():
    """The schedule in the parameters decides the samples, not the one that the experiment was built with."""
    made = experiment_files.read(experiment_files.find("sohl_dickstein_2015/swiss_roll"))(timesteps=5)
    params = init_fn(made)(jax.random.key(0))
    other = params | {"process": params["process"] + 1.0}
    plain, _ = unpack(made, params)
    moved, _ = unpack(made, other)
    np.testing.assert_allclose(plain.process.schedule.alpha_bar, made.process.schedule.alpha_bar, rtol=1e-5)
    assert moved.parameterization.process.schedule is moved.process.schedule
    assert not np.allclose(moved.process.schedule.alpha_bar, plain.process.schedule.alpha_bar)
    draws = [sample_fn(made)(each, keys(0, 4)) for each in (params, other)]
    assert not np.allclose(*draws)


def test_a_perceptron_learns_what_can_be_learnt_of_gaussian_points():
    """For x_0 ~ N(0, s^2) the best L_simple is the mean over t of alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar)."""
    variance = np.array([[4.0, 0.25]])
    alpha_bar = np.asarray(PROCESS.schedule.alpha_bar, np.float64)[1:, None]
    best = (alpha_bar * variance / (alpha_bar * variance + 1 - alpha_bar)).mean()
    network, parameterization = MLP(width=32, depth=2), parameterizations.eps(PROCESS)

    def loss(params, key, batch):
        def output(x_t, t, condition):
            return network.apply({"params": params}, x_t, jnp.broadcast_to(t - 1, x_t.shape[:1]))

        return losses.simple(key, PROCESS, parameterization, output, batch).mean()

    def train(state, key):
        batch = jax.random.normal(key, (1024, 2)) * jnp.sqrt(jnp.asarray(variance, jnp.float32))
        return step(state, batch)

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 600))
    step = make_train_step(loss, optimizer, {EMA: 0.9}, jax.random.key(0))
    params = network.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1, jnp.int32))["params"]
    walk = jax.jit(
        lambda state: jax.lax.scan(train, state, jax.random.split(jax.random.key(9), 600)),
        compiler_options={"xla_backend_optimization_level": 3},
    )
    _, metrics = walk(create(params, optimizer))
    measured = np.asarray(metrics["loss"])
    error = measured[-200:].std() / np.sqrt(200)
    assert measured[0] > 2 * best
    assert best - 3 * error < measured[-200:].mean() < 1.03 * best
