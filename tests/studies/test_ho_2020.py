"""The studies of Ho et al. 2020 agree with the samples of the run, with its data, and with each other."""

import jax.numpy as jnp
import numpy as np
import pytest
from studies.models import shrinking_run

from ddpm_jax.data import digits, load
from ddpm_jax.data.encodings import to_float, to_uint8
from ddpm_jax.sampling import Run, prior_sample
from ddpm_jax.studies.ho_2020 import distances, interpolate, neighbours, progressive, shared
from ddpm_jax.training.keys import keys


@pytest.fixture(scope="module")
def run() -> Run:
    return shrinking_run(16)


@pytest.fixture(scope="module")
def samples(run) -> np.ndarray:
    return np.asarray(run.sampler()(keys(3, 4)))


def images(*rows: int) -> np.ndarray:
    return load(digits().open("test"), rows)["image"]


def spread(images: np.ndarray) -> float:
    return float(images.astype(float).std(axis=0).mean())


def test_progressive_generation_ends_in_the_sample(run, samples):
    rows = progressive(run, num=4, seed=3, frames=5)
    assert rows.shape == (4, 5, 8, 8, 1) and rows.dtype == np.uint8
    np.testing.assert_array_equal(rows[:, -1], samples)
    errors = np.square(rows.astype(float) - rows[:, -1:]).mean(axis=(0, 2, 3, 4))
    assert (np.diff(errors) < 0).all()
    # the first estimate is made of x_T alone: E[x_0 | x_T] for data N(0, 1/4)
    alpha_bar, one_minus = run.experiment.process.schedule.at(16, 0)
    x_T = prior_sample(run.experiment, keys(3, 4))
    expected = to_uint8(x_T * jnp.sqrt(alpha_bar) / 4 / (alpha_bar / 4 + one_minus))
    np.testing.assert_allclose(rows[:, 0].astype(int), np.asarray(expected, int), atol=1)


def test_progressive_generation_has_at_most_a_frame_for_each_state():
    assert progressive(shrinking_run(3), num=2, frames=11).shape[:2] == (2, 4)


def test_samples_share_the_more_the_smaller_t(run, samples):
    rows = shared(run, num=4, seed=3)
    assert rows.shape == (4, 5, 8, 8, 1)
    for row in rows:
        np.testing.assert_array_equal(row[1], samples[0])  # image 0 of the seed, whatever t is
    x_T = prior_sample(run.experiment, keys(3, 1))
    np.testing.assert_array_equal(rows[0, 0], to_uint8(x_T)[0])
    spreads = [spread(row[1:]) for row in rows]
    assert (np.diff(spreads) < 0).all() and spreads[-1] > 0


def test_samples_that_share_x_t_share_a_class():
    """All are image 0 of the seed at small t, also the others, whose own classes would be brighter by 3/4."""
    run = shrinking_run(16, num_classes=4)
    image = np.asarray(run.sampler()(keys(3, 1), np.zeros(1, np.int32)), float)
    row = shared(run, num=4, seed=3, times=(1,))[0].astype(float)
    assert np.abs(row[1:] - image).mean() < 255 / 2 * 0.1


def test_interpolation_has_its_sources_at_the_ends_and_interpolates_pixels_at_0(run):
    sources = images(0, 1)
    rows = interpolate(run, sources, [0, 4, 16], [0.0, 0.25, 0.5, 0.75, 1.0], seed=3)
    x_0 = to_float(jnp.asarray(sources), 17)
    for row in rows:
        np.testing.assert_array_equal(row[[0, -1]], to_uint8(x_0))
    np.testing.assert_array_equal(rows[0][[1, -2]], to_uint8(x_0))
    np.testing.assert_array_equal(rows[0][3], to_uint8(x_0.mean(axis=0)))
    errors = [np.square(row[1].astype(float) - row[0]).mean() for row in rows]
    assert errors[0] == 0 < errors[1] < errors[2]  # what was diffused further comes back less like the source
    assert not np.array_equal(rows[1][1], rows[1][-2])


def test_a_column_depends_on_its_own_weight_only(run):
    sources = images(0, 1)
    many, one = (interpolate(run, sources, [6], weights, seed=3)[0] for weights in ([0.0, 0.3, 0.9], [0.3]))
    np.testing.assert_array_equal(one[1], many[2])


def test_the_noise_is_the_same_for_all_weights_and_pairs(run):
    """At weight 0 or 1 the other source has no influence."""
    image = images(0)[0]
    row = interpolate(run, np.stack([image, 16 - image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    swapped = interpolate(run, np.stack([16 - image, image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    alone = interpolate(run, np.stack([image, image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    np.testing.assert_array_equal(row[1], alone[1])
    np.testing.assert_array_equal(swapped[3], alone[3])
    assert not np.array_equal(row[2], row[1])


def test_interpolation_needs_a_network_that_samples_without_a_class(run):
    sources = images(0, 1)
    with pytest.raises(ValueError, match="train it with label_dropout above 0"):
        interpolate(shrinking_run(16, num_classes=4), sources, [4], [0.5])
    trained = shrinking_run(16, num_classes=4, label_dropout=0.1)
    np.testing.assert_array_equal(interpolate(trained, sources, [4], [0.5]), interpolate(run, sources, [4], [0.5]))


@pytest.mark.parametrize("study, times, least", [("shared", [0], 1), ("shared", [17], 1), ("interpolate", [-1], 0)])
def test_times_out_of_range_are_refused(run, study, times, least):
    with pytest.raises(ValueError, match=f"--times must be between {least} and 16, got {times[0]}"):
        shared(run, times=times) if study == "shared" else interpolate(run, images(0, 1), times, [0.5])


def test_a_training_image_is_its_own_nearest_neighbour(run, samples):
    train = load(digits().open("train"), range(50))["image"]
    assert distances(train[17:18], train).argmin() == 17
    assert distances(train[:1], train[:1] + np.uint8(2)) == 4 * 64
    rows = neighbours(run, num=4, seed=3, nearest=3)
    np.testing.assert_array_equal(rows[:, 0], samples)
    distance = np.square(rows[:, 1:].astype(float) - rows[:, :1]).sum(axis=(2, 3, 4))
    assert (np.diff(distance, axis=1) >= 0).all()
    everything = load(digits().open("train"))["image"]
    shown = np.round(everything * 15.9375).astype(np.uint8)  # 0 .. 16 as 0 .. 255
    np.testing.assert_allclose(distance[0], np.sort(distances(rows[0, :1], shown)[0])[:3], rtol=1e-2)
    assert rows[:, 1:].max() == 255
