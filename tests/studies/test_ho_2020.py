"""Studies of a trained run: where they must agree with its samples, with its data, and with themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from ddpm_jax.commands import main
from ddpm_jax.data import digits, load
from ddpm_jax.data.encodings import to_float, to_uint8
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, Run, keys, start
from ddpm_jax.studies.ho_2020 import distances, interpolate, neighbours, progressive, shared


class Shrinking(nn.Module):
    """The best predictor of the noise of data N(0, 1/4), whose samples keep much of their x_t."""

    alpha_bar: tuple[float, ...]

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        alpha_bar = jnp.asarray(self.alpha_bar)[index + 1][:, None, None, None]
        return jnp.sqrt(1 - alpha_bar) * x / (alpha_bar / 4 + 1 - alpha_bar)


@pytest.fixture(scope="module")
def run() -> Run:
    process = gaussian.process(schedules.linear(16, 0.01, 0.5), gaussian.discretized(17))
    experiment = Experiment(
        data=digits(),
        process=process,
        parameterization=parameterizations.eps(process),
        network=Shrinking(tuple(map(float, process.schedule.alpha_bar))),
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
    )
    return Run(experiment, {}, 7)


@pytest.fixture(scope="module")
def samples(run) -> np.ndarray:
    return np.asarray(jax.jit(run.sampler())(keys(3, 4)))


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
    x_T = start(run.experiment, keys(3, 4))
    expected = to_uint8(x_T * jnp.sqrt(alpha_bar) / 4 / (alpha_bar / 4 + one_minus))
    np.testing.assert_allclose(rows[:, 0].astype(int), np.asarray(expected, int), atol=1)


def test_samples_share_the_more_the_smaller_t(run, samples):
    rows = shared(run, num=4, seed=3)
    assert rows.shape == (4, 5, 8, 8, 1)
    for row in rows:
        np.testing.assert_array_equal(row[1], samples[0])  # the walk cut at t is the walk
    np.testing.assert_array_equal(rows[0, 0], to_uint8(start(run.experiment, keys(3, 1)))[0])  # x_t itself, at t = T
    spreads = [spread(row[1:]) for row in rows]
    assert (np.diff(spreads) < 0).all() and spreads[-1] > 0


def test_interpolation_has_its_sources_at_the_ends_and_mixes_pixels_at_0(run):
    sources = np.stack([digits().open("test")[i]["image"] for i in (0, 1)])
    rows = interpolate(run, sources, [0, 4, 16], [0.0, 0.25, 0.5, 0.75, 1.0], seed=3)
    x_0 = to_float(jnp.asarray(sources), 17)
    for row in rows:
        np.testing.assert_array_equal(row[[0, -1]], to_uint8(x_0))
    np.testing.assert_array_equal(rows[0][[1, -2]], to_uint8(x_0))
    np.testing.assert_array_equal(rows[0][3], to_uint8(x_0.mean(axis=0)))
    errors = [np.square(row[1].astype(float) - row[0]).mean() for row in rows]
    assert errors[0] == 0 < errors[1] < errors[2]  # what was diffused further comes back less like the source
    assert not np.array_equal(rows[1][1], rows[1][-2])


def test_weights_are_chosen_one_by_one(run):
    """The same picture at a weight, whichever others are asked for."""
    sources = np.stack([digits().open("test")[i]["image"] for i in (0, 1)])
    many, one = (interpolate(run, sources, [6], weights, seed=3)[0] for weights in ([0.0, 0.3, 0.9], [0.3]))
    np.testing.assert_array_equal(one[1], many[2])


def test_all_weights_and_both_ends_share_their_noise(run):
    """Between an image and itself, (1 - weight) x_t + weight x_t of the same noise is that of two draws otherwise."""
    image = digits().open("test")[0]["image"]
    row = interpolate(run, np.stack([image, 16 - image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    swapped = interpolate(run, np.stack([16 - image, image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    alone = interpolate(run, np.stack([image, image]), [8], [0.0, 0.5, 1.0], seed=3)[0]
    np.testing.assert_array_equal(row[1], alone[1])  # weight 0 sees its own end alone, with the same noise
    np.testing.assert_array_equal(swapped[3], alone[3])
    assert not np.array_equal(row[2], row[1])


def test_a_training_image_is_its_own_nearest_neighbour(run, samples):
    train = np.stack([digits().open("train")[i]["image"] for i in range(50)])
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


def test_a_study_is_a_picture_never_overwritten(finished, tmp_path, capsys):
    out = tmp_path / "shared.png"
    command = ["study", "shared", str(finished), "--num", "3", "--times", "50", "10", "--out", str(out)]
    assert main(command) == 0
    assert "2 rows of 4" in capsys.readouterr().out
    width, height = Image.open(out).size
    assert width > height > 48
    assert main(command) == 2 and "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, told",
    [
        (["shared", "--times", "51"], "--times 51: choose from 1 to 50"),
        (["shared", "--weights", "0.5"], "--weights is of the study interpolate, not of shared"),
        (["neighbours", "--times", "5"], "--times is of the study"),
        (["progressive", "--num", "0"], "--num must be at least 1"),
        (["progressive", "--out", "x.npz"], "end it in .png"),
    ],
)
def test_mistakes_are_told(finished, capsys, options, told):
    assert main(["study", options[0], str(finished), *options[1:]]) == 2
    assert told in capsys.readouterr().err
