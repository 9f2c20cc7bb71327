"""The studies of Sohl-Dickstein et al. 2015 on data whose chains and restorations are known in closed form."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from ddpm_jax.data import Data, heartbeat
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import binomial, gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, Run, keys
from ddpm_jax.studies.sohl_dickstein_2015 import chain, denoise, hole, inpaint

T = 200
PROCESS = gaussian.process(schedules.linear(T, 1e-4, 0.1), gaussian.density)


class Normals(nn.Module):
    """The best predictor of the noise of data N(0, 1), whose reverse chain is the forward one."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        one_minus = jnp.asarray(PROCESS.schedule.one_minus_alpha_bar)[index + 1]
        return jnp.sqrt(one_minus)[:, None] * x


class Pulses(nn.Module):
    """E[x_0 | x_t] as logits, for the five sequences of the heartbeat: exactly, by Bayes' rule."""

    alpha_bar: tuple[float, ...]

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        sequences = jnp.asarray(np.arange(20) % 5 == np.arange(5)[:, None], jnp.float32)
        alpha_bar = jnp.asarray(self.alpha_bar)[index + 1][:, None, None]
        one = sequences[None] * alpha_bar + 0.2 * (1 - alpha_bar)
        log_prob = jnp.log(jnp.where(x[:, None] > 0.5, one, 1 - one)).sum(axis=-1)
        share = jnp.einsum("nk,kd->nd", jnp.exp(log_prob - log_prob.max(axis=1, keepdims=True)), sequences)
        share /= jnp.exp(log_prob - log_prob.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True)
        return jnp.log(jnp.clip(share, 1e-7, 1)) - jnp.log(jnp.clip(1 - share, 1e-7, 1))


def run_of(data, process, parameterization, network, encoding=None) -> Run:
    experiment = Experiment(
        data=data,
        process=process,
        parameterization=parameterization,
        network=network,
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
        encoding=encoding,
    )
    return Run(experiment, {}, 7)


@pytest.fixture(scope="module")
def normals() -> Run:
    draws = np.random.default_rng(0).normal(size=(5000, 2)).astype(np.float32)
    data = Data("normals", (2,), lambda split: [{"image": row} for row in draws], levels=None)
    parameterization = parameterizations.eps(PROCESS, parameterizations.fixed_large)
    return run_of(data, PROCESS, parameterization, Normals(), points())


@pytest.fixture(scope="module")
def pulses() -> Run:
    process = binomial.process(schedules.steady(T), 0.2)
    alpha_bar = tuple(map(float, process.schedule.alpha_bar))
    return run_of(heartbeat(100), process, parameterizations.logits(process), Pulses(alpha_bar))


def test_both_chains_pass_the_same_marginals(normals):
    made = chain(normals, (0, T // 2, T), num=4000, seed=1)
    for row in (made.forward, made.reverse):
        np.testing.assert_allclose(row.mean(axis=1), 0, atol=0.08)
        np.testing.assert_allclose(row.var(axis=1), 1, atol=0.1)
    schedule = PROCESS.schedule
    kept = np.sqrt(schedule.alpha_bar[T // 2])
    correlation = (made.forward[0] * made.forward[1]).mean()
    np.testing.assert_allclose(correlation, kept, atol=0.05)
    # the mean of a forward step, (sqrt(1 - beta_t) - 1) x_t: at t = T beta is 0.1
    np.testing.assert_allclose(made.drift[2], (np.sqrt(0.9) - 1) * made.reverse[2], atol=1e-3)


def test_the_picture_is_in_the_order_of_the_times(normals):
    up, down = chain(normals, (0, 50, T), num=3), chain(normals, (T, 50, 0), num=3)
    for row, turned in zip(up, down, strict=True):
        np.testing.assert_array_equal(row, turned[::-1])


def test_denoising_samples_the_data_distribution_times_r_squared(normals):
    """As `guidance.tilted` warns. For data N(0, 1) and noise of variance 1 that is N(2/3 corrupted, 1/3)."""
    made = denoise(normals, num=4000, seed=2)
    np.testing.assert_allclose((made.corrupted - made.clean).var(), 1, atol=0.1)
    slope = (made.restored * made.corrupted).mean() / np.square(made.corrupted).mean()
    np.testing.assert_allclose(slope, 2 / 3, atol=0.03)
    np.testing.assert_allclose((made.restored - slope * made.corrupted).var(), 1 / 3, atol=0.03)


def test_annealing_gives_less_weight_to_the_corrupted_example(normals):
    plain, annealed = (denoise(normals, 4000, 2, annealed=kind) for kind in (False, True))
    slopes = [(made.restored * made.corrupted).mean() / np.square(made.corrupted).mean() for made in (plain, annealed)]
    assert slopes[1] < slopes[0] - 0.05


def test_bits_are_denoised(pulses):
    made = denoise(pulses, num=200, seed=3, noise=0.05)
    assert np.isin(made.corrupted, (0, 255)).all()
    np.testing.assert_allclose((made.corrupted != made.clean).mean(), 0.05, atol=0.01)
    assert (made.restored != made.clean).mean() < 0.5 * (made.corrupted != made.clean).mean()


def test_the_reverse_chain_ends_in_the_samples_of_the_run(normals):
    np.testing.assert_array_equal(chain(normals, (T, 7, 0), num=3, seed=5).reverse[2], normals.sampler()(keys(5, 3)))


@pytest.mark.parametrize("noise", [0, 0.5, 2])
def test_a_probability_of_flips_lies_between_0_and_a_half(pulses, noise):
    with pytest.raises(ValueError, match=rf"--noise.* must lie in \(0, 0.5\), got {noise}"):
        denoise(pulses, num=2, noise=noise)


@pytest.mark.parametrize("noise", [0, -1.0, float("nan")])
def test_a_deviation_is_above_0(normals, noise):
    with pytest.raises(ValueError, match=f"--noise.* must be above 0, got {noise}"):
        denoise(normals, num=2, noise=noise)


@pytest.mark.parametrize("noised", [False, True])
@pytest.mark.parametrize("missing", ["left", "right", "centre"])
def test_half_a_heartbeat_determines_the_other_half(pulses, missing, noised):
    made = inpaint(pulses, num=50, seed=4, missing=missing, noised=noised)
    gone = hole((20,), missing)
    np.testing.assert_array_equal(made.corrupted[:, ~gone], made.clean[:, ~gone])
    assert (made.corrupted[:, gone] != made.clean[:, gone]).any()
    np.testing.assert_array_equal(made.restored, made.clean)


def test_the_parts_of_an_example():
    assert hole((10, 6, 3), "left")[:, :3].all() and not hole((10, 6, 3), "left")[:, 3:].any()
    assert hole((10, 6, 3), "bottom")[5:].all() and not hole((10, 6, 3), "bottom")[:5].any()
    assert np.argwhere(hole((10, 10, 1), "centre")[..., 0]).min(axis=0).tolist() == [3, 3]
    assert hole((10, 10, 1), "centre").sum() == 16
    assert hole((2,), "centre").sum() == 1


def test_seeds_decide(normals):
    one, same, other = (denoise(normals, 3, seed).restored for seed in (5, 5, 6))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
