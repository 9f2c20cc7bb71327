"""`check_network`: network, target and data of an experiment fit together, or it is refused before a run is made."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import pytest
from flax import linen as nn

from ddpm_jax.data import Data
from ddpm_jax.diffusion import parameterizations
from ddpm_jax.experiment import Experiment
from ddpm_jax.networks import MLP
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.checks import check_network

SMALL = {"width": 8, "multipliers": (1.0,), "num_blocks": 1, "attention": (), "groups": 4}


def imported(**knobs: Any) -> Experiment:
    return experiment_files.read(experiment_files.find("imported"))(**SMALL, **knobs)


def build(name: str, **knobs: Any) -> Experiment:
    return experiment_files.read(experiment_files.find(name))(**knobs)


class Pointwise(nn.Module):
    """A network with the given number of output channels."""

    features: int

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return nn.Dense(self.features)(x)


ACCEPTED = [  # besides those with their own knobs, which test_experiments.py builds
    ("fashion_mnist", {"width": 16}),
    ("fashion_mnist", {"schedule": "cosine"}),
    ("fashion_mnist", {"learned_range": True}),
    ("pictures", {"prediction": "v"}),
    ("ho_2020/celeba_hq", {"folder_of_images": "folder", "truncate": True}),
    ("ho_2020/lsun", {"category": "cat"}),
    ("sohl_dickstein_2015/heartbeat", {"timesteps": 10, "rate": 0.5}),
    ("sohl_dickstein_2015/swiss_roll", {"train_betas": False, "beta_T": 1.0, "hidden": 128}),
    *(("sohl_dickstein_2015/images", {"data": data}) for data in ("dead_leaves", "mnist", "mnist_5000", "cifar10")),
    ("sohl_dickstein_2015/images", {"released": False, "size": 20, "timesteps": 50}),
    ("sohl_dickstein_2015/images", {"data": "bark", "folder_of_images": "folder"}),
]


@pytest.mark.parametrize("name, knobs", ACCEPTED, ids=str)
def test_the_shipped_experiments_are_accepted(name, knobs):
    check_network(build(name, **knobs))


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"image_shape": (8, 8, 1)},  # the channels of the output follow the image
        {"image_shape": (8, 12, 4), "prediction": "v", "clip": None, "variance": "fixed_small", "schedule": "cosine"},
        {"prediction": "x0", "sampler": "ddim", "schedule": "betas", "betas": (0.1, 0.5)},
        {"num_classes": 10, "data": "cifar10", "label_dropout": 0.1},
    ],
    ids=str,
)
def test_a_u_net_of_any_kind_is_accepted(knobs):
    experiment = imported(**knobs)
    check_network(experiment)
    assert experiment.label_dropout == knobs.get("label_dropout", 0.0)


@pytest.mark.parametrize("out_channels", [2, 4, 6])
def test_another_number_of_output_channels_is_refused(out_channels):
    with pytest.raises(ValueError, match=rf"{out_channels}.*\(32, 32, 3\)|\(32, 32, 3\).*{out_channels}"):
        check_network(imported(out_channels=out_channels))


def test_a_single_output_channel_is_refused_for_images_of_several():
    """It would broadcast, and train a network that predicts the mean of the channels."""
    with pytest.raises(ValueError, match="out_channels"):
        check_network(imported(out_channels=1))


def test_colour_outputs_are_refused_for_grey_images():
    with pytest.raises(ValueError, match="out_channels"):
        check_network(imported(image_shape=(8, 8, 1), out_channels=3))


@pytest.mark.parametrize("channels, factor", [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3)])
def test_a_learned_variance_requires_two_outputs_per_channel(channels, factor):
    experiment = imported(image_shape=(8, 8, channels))
    learned = parameterizations.learned(experiment.process, parameterizations.eps(experiment.process))
    experiment = dataclasses.replace(experiment, parameterization=learned, network=Pointwise(factor * channels))
    if factor == 2:
        check_network(experiment)
    else:
        with pytest.raises(ValueError):
            check_network(experiment)


@pytest.mark.parametrize("features", [1, 2, 3, 8])
def test_points_require_a_mean_and_a_variance_each(features):
    with pytest.raises(ValueError):
        check_network(dataclasses.replace(build("sohl_dickstein_2015/swiss_roll"), network=Pointwise(features)))


def test_an_output_of_fewer_dimensions_is_refused():
    class Pooled(nn.Module):
        @nn.compact
        def __call__(self, x, index, label=None, train=False):
            return jnp.mean(x, axis=(1, 2))

    with pytest.raises(ValueError):
        check_network(dataclasses.replace(imported(image_shape=(8, 8, 3)), network=Pooled()))


@pytest.mark.parametrize(
    "data, message",
    [
        (Data("pictures", (8, 8, 3), open=lambda split: []), "the network has 10 classes, the data pictures no labels"),
        (
            Data("seven", (8, 8, 3), open=lambda split: [], num_classes=7),
            "the network has 10 classes, the data seven 7",
        ),
    ],
    ids=["missing", "others"],
)
def test_labels_that_the_network_needs_are_required_of_the_data(data, message):
    experiment = imported(image_shape=(8, 8, 3), num_classes=10)
    with pytest.raises(ValueError, match=message):
        check_network(dataclasses.replace(experiment, data=data))


def test_labels_that_the_network_does_not_use_are_accepted():
    data = Data("labelled", (8, 8, 3), open=lambda split: [], num_classes=7)
    check_network(dataclasses.replace(imported(image_shape=(8, 8, 3)), data=data))


def test_images_of_a_size_that_the_network_cannot_halve_are_refused():
    with pytest.raises(ValueError, match=r"6x6 cannot be halved 2 times"):
        check_network(build("imported", image_shape=(6, 6, 3), multipliers=(1.0, 1.0, 1.0)))


def test_a_single_output_is_refused_for_sequences_of_bits():
    with pytest.raises(ValueError):
        check_network(dataclasses.replace(build("sohl_dickstein_2015/heartbeat"), network=MLP(out_features=1)))
