"""Power-function averages: their profiles, and averages of other lengths from those that were stored."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax.training import EMA, Power, create, gamma_of, make_train_step, power_name
from ddpm_jax.training.averages import LONGEST, averaged, reconstruction

EIGHTHS = [(1000 * k, length) for k in range(1, 9) for length in (0.05, 0.1)]


def test_gamma_is_that_of_the_paper():
    """Roots of Eq. 126, computed in float64."""
    golden = {0.05: 16.972198602303, 0.1: 6.937203937602, 0.15: 3.557868774899, 0.25: 0.719823958007}
    for length, gamma in golden.items():
        assert gamma_of(length) == pytest.approx(gamma, abs=1e-11)


@pytest.mark.parametrize("length", [0.01, 0.1, 0.28])
def test_the_length_is_the_standard_deviation_of_the_profile(length):
    """Of the density (gamma + 1) t^gamma on [0, 1], whose moments are integrated numerically."""
    gamma = gamma_of(length)
    t = (np.arange(200_000) + 0.5) / 200_000
    p = t**gamma / (t**gamma).sum()
    assert np.sqrt((p * t**2).sum() - (p * t).sum() ** 2) == pytest.approx(length, rel=1e-6)


@pytest.mark.parametrize("length", [0.0, -0.1, LONGEST, 0.5, float("nan"), float("inf")])
def test_a_length_that_no_profile_has_is_refused(length):
    with pytest.raises(ValueError, match=r"above 0 and below 0\.2887, got"):
        gamma_of(length)


def profile(gamma, steps):
    """The weight of each step's parameters in the average: that of step n is the average of a pulse at n."""
    pulses = jnp.eye(steps)

    def step(average, n):
        return averaged(pulses[n], average, Power(gamma), n), None

    start = jnp.full(steps, jnp.nan)  # which the first step replaces, whatever it was
    return np.asarray(jax.lax.scan(step, jnp.nan_to_num(start, nan=7.0), jnp.arange(steps))[0])


@pytest.mark.parametrize("length", [0.05, 0.1, 0.25])
def test_the_weights_of_the_steps_are_integrals_of_the_profile(x64, length):
    """Over (n - 1, n], of (gamma + 1) t^gamma / N^(gamma + 1): at any length of the run, not only in the limit."""
    gamma, edges = gamma_of(length), np.arange(51) / 50
    np.testing.assert_allclose(profile(gamma, 50), np.diff(edges ** (gamma + 1)), rtol=1e-9, atol=1e-15)


def test_constant_parameters_stay_and_a_ramp_lags_by_its_share(x64):
    """A ramp t has the average (gamma + 1) / (gamma + 2) t, up to a step."""
    gamma, steps = gamma_of(0.1), 4000

    def step(averages, n):
        return averaged((3.7, n + 1.0), averages, Power(gamma), n), None

    start = (jnp.float64(0), jnp.float64(0))
    (constant, ramp), _ = jax.lax.scan(step, start, jnp.arange(steps))
    assert float(constant) == pytest.approx(3.7, rel=1e-13)
    assert float(ramp) == pytest.approx((gamma + 1) / (gamma + 2) * steps, abs=1.0)


def test_late_steps_of_a_long_run_keep_their_digits():
    """share_n = (gamma + 1) / n to first order: in float32 one minus a decay would be wrong by a few percent."""
    gamma, n = gamma_of(0.1), 2_000_000
    share = float(jax.jit(Power(gamma).share)(jnp.int32(n - 1)))
    assert share == pytest.approx(-np.expm1((gamma + 1) * np.log1p(-1 / n)), rel=1e-6)


def test_before_the_first_step_there_is_no_average():
    with pytest.raises(ValueError, match="this is step 0"):
        reconstruction([(1, 0.05)], 0, 0.07)


def test_what_is_stored_is_reconstructed_exactly():
    for number, length in enumerate((0.05, 0.1)):
        weights, error = reconstruction(EIGHTHS, 8000, length)
        np.testing.assert_allclose(weights, np.eye(16)[14 + number], atol=1e-12)
        assert error < 1e-12


def test_the_error_of_a_length_between_is_that_of_the_profiles(x64):
    """1.56e-4 from eight snapshots (Algorithm 3 in float64), and as much for the weights of the steps of a run."""
    weights, error = reconstruction(EIGHTHS, 8000, 0.075)
    assert error == pytest.approx(1.57e-4, abs=0.02e-4) and weights.sum() == pytest.approx(1, abs=1e-12)
    stored = np.stack([np.pad(_weights(length, t), (0, 8000 - t)) for t, length in EIGHTHS])
    wanted = _weights(0.075, 8000)
    measured = np.square(weights @ stored - wanted).sum() / np.square(wanted).sum()
    assert measured == pytest.approx(error, rel=0.01)


def _weights(length, steps):
    """The weights of the steps, which a test above shows to be these."""
    return np.diff((np.arange(steps + 1) / steps) ** (gamma_of(length) + 1))


def test_more_snapshots_reconstruct_better_and_far_lengths_worse():
    errors = [
        reconstruction([(k, each) for k in range(1, n + 1) for each in (0.05, 0.1)], n, 0.15).error
        for n in (2, 4, 8, 16, 64)
    ]
    assert all(np.diff(np.log(errors)) < -1)
    assert reconstruction(EIGHTHS, 8000, 0.28).error > 100 * errors[2] > 0.1


def test_the_train_step_averages_the_parameters_after_each_step():
    """Those of the steps, weighted by the profile; the EMA beside it is what it was without."""
    optimizer, names = optax.sgd(0.1), (EMA, power_name(0.1))
    decays = {EMA: 0.9, power_name(0.1): Power(gamma_of(0.1))}

    def loss_fn(params, key, batch):
        return jnp.square(params - 1).sum() + (params * jax.random.normal(key, (3,))).sum()

    def path(names):
        step = jax.jit(make_train_step(loss_fn, optimizer, decays, jax.random.key(0)))
        state, params = create(jnp.zeros(3), optimizer, names), []
        for _ in range(20):
            state, _ = step(state, None)
            params.append(state.params)
        return state, np.stack(params)

    (state, params), (plain, _) = path(names), path((EMA,))
    np.testing.assert_allclose(state.averages[power_name(0.1)], _weights(0.1, 20) @ params, rtol=1e-5)
    np.testing.assert_array_equal(state.averages[EMA], plain.averages[EMA])
