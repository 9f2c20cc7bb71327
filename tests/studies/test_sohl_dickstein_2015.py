"""The studies of Sohl-Dickstein et al. 2015 on data whose chains and restorations are known in closed form."""

import numpy as np
import pytest
from studies.models import normals_run, pulses_run

from ddpm_jax.sampling import Run
from ddpm_jax.studies.sohl_dickstein_2015 import chain, denoise, hole, inpaint
from ddpm_jax.training.keys import keys

T = 200


@pytest.fixture(scope="module")
def normals() -> Run:
    return normals_run(T)


@pytest.fixture(scope="module")
def pulses() -> Run:
    return pulses_run(T)


def test_both_chains_pass_the_same_marginals(normals):
    made = chain(normals, (0, T // 2, T), num=4000, seed=1)
    for row in (made.forward, made.reverse):
        np.testing.assert_allclose(row.mean(axis=1), 0, atol=0.08)
        np.testing.assert_allclose(row.var(axis=1), 1, atol=0.1)
    kept = np.sqrt(normals.experiment.process.schedule.alpha_bar[T // 2])
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


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_a_probability_of_flips_lies_between_0_and_a_half(pulses, noise):
    with pytest.raises(ValueError, match=rf"--noise.* must lie in \(0, 0.5\), got {noise}"):
        denoise(pulses, num=2, noise=noise)


@pytest.mark.parametrize("noise", [0.0, -1.0, float("nan")])
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
