"""The runs of Sohl-Dickstein et al. 2015, held to ceilings that no run may exceed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import recipes
from ddpm_jax.cli import main
from ddpm_jax.data import load
from ddpm_jax.diffusion import gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.encodings import standardised
from ddpm_jax.evaluate import bits_per_dim
from ddpm_jax.experiment import Experiment, Run, bind, init_fn, keys, loss_fn, resolved
from ddpm_jax.metrics import parzen
from ddpm_jax.networks.multiscale import temporal_basis
from ddpm_jax.training import create, make_train_step


def build(name: str, **knobs) -> Experiment:
    return recipes.read(recipes.find(f"sohl_dickstein_2015/{name}"))(**knobs)


@pytest.fixture(scope="module")
def beating() -> Run:
    """The heartbeat at T = 100, trained for seconds."""
    experiment = build("heartbeat", timesteps=100, num_steps=2000, batch_size=1000)
    step = make_train_step(loss_fn(experiment), experiment.optimizer, 0.99, seed=0)
    batch = jnp.asarray(load(experiment.data.open("train"), range(1000))["image"])
    state = create(init_fn(experiment)(jax.random.key(0)), experiment.optimizer)
    optimised = {"xla_backend_optimization_level": 3}
    train = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, {"image": batch}), state, length=2000)[0])
    return Run(experiment, train.lower(state).compile(compiler_options=optimised)(state).ema, 2000)


def test_the_heartbeat_comes_close_under_its_ceiling(beating):
    """No chain of 100 steps with independent bits exceeds K = -2.973699 bits a sequence: all 3,125 states counted."""
    measured = bits_per_dim(beating, beating.experiment.data.open("test"), num=1000, batch_size=1000)
    K, error = measured.K
    assert -3.2 < K < -2.973699 + 3 * error
    null = 20 * (0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert measured.K_over_null[0] == pytest.approx(K - null, abs=1e-3)


def test_its_samples_have_a_pulse_in_every_fifth_bin(beating):
    bits = np.asarray(jax.jit(beating.sampler())(keys(0, 60))) // 255
    assert np.mean([np.array_equal(row, np.roll(row, 5)) and row.sum() == 4 for row in bits]) > 0.8


def test_a_heartbeat_is_trained_measured_and_drawn_from_the_command_line(tmp_path):
    run = str(tmp_path / "run")
    command = ["train", "sohl_dickstein_2015/heartbeat", "--workdir", run, "--timesteps", "20"]
    assert main([*command, "--num-steps", "4", "--batch-size", "8"]) == 0
    record = json.loads((tmp_path / "run" / "evaluation.json").read_text())[0]
    assert record["protocol"]["metrics"] == ["K"] and record["bpd"]["K"][0] < -2.3219
    assert main(["sample", run, "--num", "5", "--out", str(tmp_path / "samples.png")]) == 0
    assert main(["sample", run, "--num", "5", "--out", str(tmp_path / "folder")]) == 2


def swiss(**knobs) -> Experiment:
    return build("swiss_roll", **knobs)


def test_trained_betas_begin_where_they_are_declared_and_the_first_stays():
    experiment = swiss(beta_1=1e-4, beta_T=0.5)
    params = init_fn(experiment)(jax.random.key(0))
    batch = {"image": jnp.asarray(np.random.default_rng(0).normal(size=(64, 2)), jnp.float32)}
    grads = jax.jit(jax.grad(loss_fn(experiment)))(params, jax.random.key(1), batch)
    assert params["process"].shape == (39,) and np.abs(grads["process"]).min() > 0
    made, _ = resolved(experiment, params)
    np.testing.assert_allclose(made.process.schedule.alpha_bar, experiment.process.schedule.alpha_bar, rtol=1e-5)
    moved, _ = resolved(experiment, params | {"process": params["process"] + 0.5})
    betas = [np.asarray(each.process.schedule.between(np.arange(40), np.arange(1, 41), 1)[1]) for each in (made, moved)]
    np.testing.assert_allclose(betas[1][0], 1e-4, rtol=1e-5)
    assert (betas[1][1:] > betas[0][1:]).all()


def test_frozen_noise_gives_the_gradient_of_the_bound(x64):
    """The loss at any beta, by differences: the noise is the same at both ends of each."""
    schedule = lambda logit: schedules.of_betas(jax.nn.sigmoid(jnp.linspace(-5.0, 0.0, 6) + logit))  # noqa: E731
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)))

    @jax.jit
    def loss(logit):
        process = gaussian.process(schedule(logit), gaussian.density)
        reading = parameterizations.fixed_last(process, parameterizations.shrinking(process))
        network = lambda x_t, t, condition: jnp.concatenate([jnp.sin(x_t), 0.1 * x_t], axis=-1)  # noqa: E731
        return losses.evidence(jax.random.key(0), process, reading, network, x_0).mean()

    slope = (loss(0.3 + 1e-6) - loss(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.3), slope, rtol=1e-6)


@pytest.mark.parametrize("released", [False, True])
def test_a_network_of_zeros_is_exact_for_data_of_unit_variance(x64, released):
    """K = -H(data) then: each step draws towards zero as the forward one does, and every divergence vanishes."""
    process = gaussian.process(schedules.from_betas(1 / np.linspace(50, 2, 50), np.float64), gaussian.density)
    reading = parameterizations.shifted(process, 50) if released else parameterizations.shrinking(process)
    reading = parameterizations.fixed_last(process, reading)
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 1)))
    zeros = lambda x_t, t, condition: jnp.zeros((*x_t.shape[:-1], 2 * x_t.shape[-1]))  # noqa: E731
    bound = jax.jit(lambda keys: losses.bound(keys, process, reading, zeros, x_0))
    terms = bound(jax.random.split(jax.random.key(0), 4000))
    error = 3 * float(terms.K().std()) / np.sqrt(4000)
    assert abs(float(terms.K().mean()) + 0.5 * np.log(2 * np.pi * np.e)) < error
    # and by one term at a time, without bias
    one = losses.evidence(jax.random.key(1), process, reading, zeros, x_0) * np.log(2)
    assert abs(float(one.mean()) - 0.5 * np.log(2 * np.pi * np.e)) < 4 * float(one.std()) / np.sqrt(4000)
    # its samples keep unit variance
    samples = samplers.sample(
        jax.random.split(jax.random.key(2), 4000),
        samplers.ddpm(process, reading, zeros),
        jax.random.normal(jax.random.key(3), (4000, 1)),
        samplers.times(50, 50),
    )
    assert abs(float(samples.var()) - 0.9) < 0.1


def test_without_the_root_as_the_paper_prints_it_variance_is_lost(x64):
    process = gaussian.process(schedules.constant(200, 0.1, np.float64), gaussian.density)
    zeros = lambda x_t, t, condition: jnp.zeros((*x_t.shape[:-1], 2 * x_t.shape[-1]))  # noqa: E731
    variances = []
    for printed in (False, True):
        sampler = samplers.ddpm(process, parameterizations.shrinking(process, printed), zeros)
        x_T = jax.random.normal(jax.random.key(3), (2000, 1))
        x = samplers.sample(jax.random.split(jax.random.key(2), 2000), sampler, x_T, samplers.times(200, 200))
        variances.append(float(x.var()))
    assert variances[0] > 0.8 and variances[1] < 0.6


# the odds of 2015's Eq. 64, sigmoid(z + logit(beta)), by hand
@pytest.mark.parametrize("shift, beta, expected", [(1.0, 0.01, 0.0267236310), (-2.0, 0.3, 0.0548211624)])
def test_the_variance_is_that_of_the_paper(x64, shift, beta, expected):
    process = gaussian.process(schedules.constant(3, beta, np.float64), gaussian.density)
    output = jnp.array([[0.0, shift]])
    kernel = parameterizations.shrinking(process).kernel(output, jnp.ones((1, 1)), 2, 1)
    np.testing.assert_allclose(kernel.variance, expected, rtol=1e-8)


def test_entropy_bounds_of_gaussian_data(x64):
    """2015's Eq. 24 for N(0, 1/4), linear schedule: (t, lower, exact, upper), nats, by an independent script."""
    process = gaussian.process(schedules.linear(1000, dtype=np.float64), gaussian.density)
    for t, lower, exact, upper in [
        (2, -3.489424034, -3.095584428, -3.095404653),
        (10, -2.752299144, -2.673126656, -2.672710605),
        (100, -1.679790406, -1.672803525, -1.670664552),
    ]:
        bounds = losses.entropy_bounds(jax.random.key(0), process, jnp.zeros((1, 1)), t)
        np.testing.assert_allclose([float(each[0, 0]) for each in bounds], [lower, upper], atol=1e-8)
        assert lower < exact < upper


# the released code's basis: ten bumps over 1000 steps, half a spacing wide: (row, values), by an independent script
@pytest.mark.parametrize(
    "index, expected",
    [(0, [0.880537, 0.119168, 0.000295]), (111, [0.106479, 0.786778, 0.106479, 0.000264])],
)
def test_the_bumps_in_time_are_those_of_the_released_code(index, expected):
    row = np.asarray(temporal_basis(jnp.array([index]), 1000, 10, width=0.5))[0]
    np.testing.assert_allclose(row[: len(expected)], expected, atol=1e-6)
    assert row.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("data", ["dead_leaves", "mnist", "mnist_5000", "cifar10", "bark"])
def test_the_images_are_built_at_full_size(data):
    experiment = build("images", data=data, folder_of_images="somewhere" if data == "bark" else None)
    assert experiment.process.schedule.num_steps == (500 if data == "bark" else 1000)
    shapes = jax.eval_shape(init_fn(experiment), jax.random.key(0))
    output = jax.eval_shape(
        lambda params: bind(experiment, params)(jnp.zeros((1, *experiment.data.image_shape)), 1, None), shapes
    )
    assert output.shape == (1, *experiment.data.image_shape[:2], 2 * experiment.data.image_shape[2])


def test_bytes_become_continuous_before_they_are_scaled():
    """Uniform over one level, so that rounding down gives the bytes back; its width is 1 / (256 deviation)."""
    encoding = standardised(0.3, 0.2)
    stored = jnp.full((2000, 1, 1, 1), 77, jnp.uint8)
    x_0 = encoding.encode(keys(0, 2000), stored)
    spread = (np.asarray(x_0) * 0.2 + 0.3) * 256
    assert 77 <= spread.min() < 77.01 and 77.99 < spread.max() <= 78.0001
    one = encoding.encode(keys(0, 5), stored[:5])
    np.testing.assert_array_equal(one, x_0[:5])  # each example has noise of its own


def test_the_parzen_estimate_of_the_true_density_is_its_entropy():
    """Many Gaussian points as centres: the mean log density is near -H, and below it."""
    draw = np.random.default_rng(0)
    samples, held_out, test = (jnp.asarray(draw.normal(size=(n, 2)), jnp.float32) for n in (20_000, 500, 2000))
    mean, error, width = parzen(samples, held_out, test)
    entropy = np.log(2 * np.pi * np.e)
    assert -entropy - 0.1 < mean < -entropy + 3 * error
    assert 0.1 <= width < 0.25


def test_an_untrained_swiss_roll_is_drawn_from_the_prior():
    """Its readout of zeros takes each step as the forward chain does: points of unit variance, as floats."""
    experiment = swiss(train_betas=False)
    run = Run(experiment, init_fn(experiment)(jax.random.key(0)), 0)
    points = np.asarray(jax.jit(run.sampler())(keys(0, 4000)))
    assert points.dtype == np.float32
    np.testing.assert_allclose(np.cov(points.T), np.eye(2), atol=0.1)
