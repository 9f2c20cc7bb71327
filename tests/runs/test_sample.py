"""Which images are drawn: by seed, number and label, whatever the batch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import ddpm_jax
from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.runs import chunks, sample
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.runs.sample import draws, labels_of
from ddpm_jax.sampling import Run
from ddpm_jax.training import sharding


class Labelled(nn.Module):
    """Predicts an image as bright as its label says, and a little of x_t; label `num_classes` is none."""

    num_classes: int | None

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        label = jnp.zeros_like(index) if label is None else label
        return 0.1 * x + (label / 4 - 0.25)[:, None, None, None]


def run(num_classes: int | None = 3) -> Run:
    process = gaussian.process(schedules.linear(6, 0.05, 0.6))
    experiment = Experiment(
        data=Data("none", (2, 2, 1), open=lambda split: []),
        process=process,
        parameterization=parameterizations.x0(process),
        network=Labelled(num_classes),
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
    )
    return Run(experiment, {}, 0)


def request(num: int = 5, seed: int = 0, label: int | None = None, batch_size: int | None = None) -> SampleRequest:
    return SampleRequest(Path(), num=num, seed=seed, label=label, batch_size=batch_size)


def images(one: SampleRequest) -> np.ndarray:
    drawn = draws(run(), one, labels_of(run(), one))
    return np.concatenate([drawn.compute([first])[0]["images"] for first in drawn.firsts])


def test_each_class_comes_in_turn_or_the_one_asked_for():
    np.testing.assert_array_equal(labels_of(run(), request()), [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(labels_of(run(), request(label=2)), [2] * 5)
    assert labels_of(run(None), request()) is None


def test_an_image_depends_on_its_seed_number_and_label_alone():
    mixed, ones = images(request()), images(request(label=1))
    np.testing.assert_array_equal(mixed[[1, 4]], ones[[1, 4]])
    assert (mixed[2] > ones[2]).all() and (mixed[0] < ones[0]).all()
    np.testing.assert_array_equal(images(request(num=3)), mixed[:3])
    assert not np.array_equal(images(request(seed=1)), mixed)


def test_large_images_are_drawn_in_smaller_batches():
    """A v5e has 16 GB; 256 images of 256x256 need 33 for activations alone, as its compiler says."""
    sizes = [sample.default_batch_size((side, side, 3), cpu=False) for side in (8, 64, 128, 256, 1024)]
    assert sizes == [256, 256, 64, 16, 1]
    assert [sample.default_batch_size(shape, cpu=True) for shape in ((8, 8, 1), (2,), (256, 256, 3))] == [16, 16, 1]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_batches_decide_nothing(size):
    difference = images(request(batch_size=size)).astype(int) - images(request())
    assert np.abs(difference).max() <= 1  # the last bit of a sum, before rounding


@pytest.mark.parametrize("devices", [2, 8])
def test_images_are_the_same_to_the_bit_on_any_number_of_devices(finished, tmp_path, monkeypatch, devices):
    drawn = []
    for count in (1, devices):
        monkeypatch.setattr(chunks, "devices_for", lambda *_, count=count: count)
        out = tmp_path / f"{count}.npz"
        sample.sample_to_file(SampleRequest(finished, out=out, num=19, steps=6, batch_size=2))
        drawn.append(np.load(out)["arr_0"])
    np.testing.assert_array_equal(*drawn)


def test_your_own_code_samples_over_a_mesh(finished):
    one, mesh = ddpm_jax.load(finished), sharding.make_mesh({"data": 4, "fsdp": 2})
    expected = one.sampler(steps=6)(ddpm_jax.keys(0, 16))
    spread = one.sampler(steps=6, mesh=mesh)
    images = jax.jit(lambda draw, keys: draw(keys))(spread, ddpm_jax.keys(0, 16))
    assert images.sharding.num_devices == 8 and not images.sharding.is_fully_replicated
    np.testing.assert_allclose(np.asarray(images, int), np.asarray(expected, int), atol=1)
    with pytest.raises(ValueError, match="9 keys do not divide over 8 devices"):
        spread(ddpm_jax.keys(0, 9))


def test_classes_that_are_not_there():
    with pytest.raises(ValueError, match="--label 3: the classes are 0 to 2"):
        labels_of(run(), request(label=3))
    with pytest.raises(ValueError, match="not class-conditional"):
        labels_of(run(None), request(label=0))
