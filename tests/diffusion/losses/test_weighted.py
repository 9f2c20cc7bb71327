"""Weighted losses: one value whatever the parameterization, and timesteps that are uniform one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, images

from ddpm_jax.diffusion import binomial, gaussian, losses, parameterizations, schedules

PROCESS = gaussian.process(schedules.linear(1000))
WEIGHTS = {
    "min_snr": (losses.min_snr(5.0), lambda snr: np.minimum(snr, 5.0)),
    "truncated_snr": (losses.truncated_snr(), lambda snr: np.maximum(snr, 1.0)),
    "p2": (losses.p2(0.5), lambda snr: snr / np.sqrt(1 + snr)),
}


def outputs(kind, variance=0.25):
    """The outputs of the best network for data N(0, variance), in this parameterization."""
    eps = best_eps(PROCESS.schedule, variance)

    def network(x_t, t, condition):
        alpha_bar, one_minus = PROCESS.schedule.at(t, x_t.ndim)
        noise = eps(x_t, t, condition)
        x_0 = (x_t - jnp.sqrt(one_minus) * noise) / jnp.sqrt(alpha_bar)
        return {"eps": noise, "x0": x_0, "v": jnp.sqrt(alpha_bar) * noise - jnp.sqrt(one_minus) * x_0}[kind]

    return network


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_parameterization_does_not_matter(name):
    x_0, _, _ = images(64, np.float32)
    found = [
        WEIGHTS[name][0](jax.random.key(0), PROCESS, getattr(parameterizations, kind)(PROCESS), outputs(kind), x_0)
        for kind in ("eps", "x0", "v")
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=2e-3)
    np.testing.assert_allclose(found[2], found[0], rtol=2e-3)


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_mean_loss_of_the_best_network_is_the_weighted_posterior_variance(name):
    """Var(x_0 | x_t) = s^2 (1 - alpha_bar) / (alpha_bar s^2 + 1 - alpha_bar), averaged over t with the weights."""
    loss, weight = WEIGHTS[name]
    alpha_bar, one_minus = (
        np.asarray(each, np.float64)[1:] for each in (PROCESS.schedule.alpha_bar, PROCESS.schedule.one_minus_alpha_bar)
    )
    expected = np.mean(weight(alpha_bar / one_minus) * 0.25 * one_minus / (alpha_bar * 0.25 + one_minus))
    x_0 = 0.5 * jax.random.normal(jax.random.key(1), (50_000, 4))
    found = np.asarray(loss(jax.random.key(0), PROCESS, parameterizations.eps(PROCESS), outputs("eps"), x_0))
    assert found.mean() == pytest.approx(expected, abs=5 * found.std() / np.sqrt(len(found)))


@pytest.mark.parametrize("draw", [losses.uniform, losses.stratified, losses.antithetic])
def test_the_weight_snr_is_simple_for_eps(draw):
    x_0, _, _ = images(64, np.float32)
    given = PROCESS, parameterizations.eps(PROCESS), outputs("eps"), x_0
    found = losses.Weighted(lambda snr: snr, draw)(jax.random.key(0), *given)
    simple = losses.simple(jax.random.key(0), *given, draw=draw)
    np.testing.assert_allclose(found, simple, rtol=2e-3)


@pytest.mark.parametrize("draw", [losses.uniform, losses.stratified, losses.antithetic])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_each_timestep_is_uniform(draw, batch):
    """Of 20,000 batches: for T = 10 each t occurs equally often at each place of the batch."""
    drawn = np.asarray(jax.vmap(lambda key: draw(key, batch, 10))(jax.random.split(jax.random.key(0), 20_000)))
    assert drawn.shape == (20_000, batch) and drawn.min() == 1 and drawn.max() == 10
    for place in (0, batch // 2, batch - 1):
        counts = np.bincount(drawn[:, place], minlength=11)[1:]
        assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_strata_are_each_visited_once_and_lower_the_variance():
    def keys():
        return jax.random.split(jax.random.key(0), 500)

    strata = np.sort(np.asarray(jax.vmap(lambda key: losses.stratified(key, 50, 1000))(keys())), axis=1)
    assert np.all(np.diff(strata, axis=1) >= 19) and np.all(np.diff(strata, axis=1) <= 21)
    x_0 = 0.5 * jax.random.normal(jax.random.key(1), (50, 4))

    def spread(draw):
        loss = losses.Weighted(lambda snr: snr, draw)
        given = PROCESS, parameterizations.eps(PROCESS), outputs("eps"), x_0
        return jax.jit(jax.vmap(lambda key: loss(key, *given).mean()))(keys()).var()

    assert spread(losses.stratified) < 0.7 * spread(losses.uniform)


def test_bits_have_no_squared_error():
    process = binomial.process(schedules.steady(10))
    with pytest.raises(ValueError, match="a weighted loss needs a Gaussian process"):
        losses.min_snr()(
            jax.random.key(0), process, parameterizations.logits(process), lambda *a: a[0], jnp.zeros((2, 3))
        )
