"""The shipped experiments: built at full size by shapes only, and compared with the figures of the papers."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from ddpm_jax.experiment import Experiment, init_fn, loss_fn, shapes
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.verify import learning_rates, verify


def build(name: str, **knobs: Any) -> Experiment:
    return experiment_files.read(experiment_files.find(name))(**knobs)


def parameters(experiment: Experiment) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment)))


@pytest.mark.parametrize("name", experiment_files.shipped())
def test_it_builds_at_full_size_and_describes_itself(name):
    experiment = build(name)
    check_network(experiment)
    assert parameters(experiment) > 1000
    assert experiment_files.headline(experiment_files.find(name)).endswith((".", ")"))
    assert "ddpm-jax train" in experiment_files.read(experiment_files.find(name)).__globals__["__doc__"]


PAPERS = [name for name in experiment_files.shipped() if name.startswith(("ho_2020", "nichol_2021", "song_2021"))]


@pytest.mark.parametrize(
    ("name", "width", "knobs"),
    [
        ("digits", 8, {}),
        ("classifier", 8, {}),
        ("fashion_mnist", 16, {}),
        ("pictures", 32, {}),
        *((paper, 32, {}) for paper in PAPERS),
        ("sohl_dickstein_2015/images", 8, {"network": "unet"}),
    ],
)
def test_at_the_smallest_width_no_channel_is_a_group_of_its_own(name, width, knobs):
    """Such a group loses the mean of its channel: the brightness of images."""
    groups = build(name, width=width, **knobs).network.groups
    assert groups <= width // 2 and width % groups == 0


@pytest.mark.parametrize("name", experiment_files.shipped())
def test_the_help_of_each_knob_is_a_sentence(name):
    function = experiment_files.read(experiment_files.find(name))
    entries = re.findall(r"^        (\w+): (.)", function.__doc__ or "", re.MULTILINE)
    assert [knob for knob, _ in entries] == list(experiment_files.defaults(function))
    assert all(first.isupper() for _, first in entries)


@pytest.mark.parametrize("name", experiment_files.shipped())
def test_the_learning_rate_rises_only_over_the_warm_up(name):
    """Without one it has its full value at the first step: a rate of zero would never change."""
    knobs = experiment_files.defaults(experiment_files.read(experiment_files.find(name)))
    if "warmup" not in knobs:
        assert learning_rates(build(name), 1)[1] > 0
        return
    highest = knobs["learning_rate"]
    np.testing.assert_allclose(learning_rates(build(name, warmup=0), 2), highest, rtol=1e-4)
    np.testing.assert_allclose(
        learning_rates(build(name, warmup=4), 5), highest * np.minimum(np.arange(6) / 4, 1), rtol=1e-4
    )
    with pytest.raises(ValueError, match="warmup must be at least 0 steps, got -1"):
        build(name, warmup=-1)


CIFAR, LSUN = "ho_2020/cifar10", "ho_2020/lsun"
LEARNED = {"variance": "learned", "loss": "bound"}


@pytest.mark.parametrize(
    "name, knobs, count, steps, batch, rate, dropout, flips",
    [
        (CIFAR, {}, 35_746_307, 800_000, 128, 2e-4, 0.1, True),
        (CIFAR, LEARNED, 35_749_766, 800_000, 128, 2e-4, 0.1, True),
        ("ho_2020/celeba_hq", {}, 113_673_219, 500_000, 64, 2e-5, 0.0, True),
        (LSUN, {}, 113_673_219, 2_400_000, 64, 2e-5, 0.0, False),
        (LSUN, {"large": True}, 255_677_955, 1_150_000, 64, 2e-5, 0.0, False),
        (LSUN, {"category": "church_outdoor"}, 113_673_219, 1_200_000, 64, 2e-5, 0.0, True),
        (LSUN, {"category": "cat"}, 113_673_219, 1_800_000, 64, 2e-5, 0.0, True),
    ],
)
def test_the_figures_of_ho_2020(name, knobs, count, steps, batch, rate, dropout, flips):
    """Ho et al. 2020, Section 4 and Appendix B."""
    experiment = build(name, **knobs)
    assert parameters(experiment) == count
    assert (experiment.num_steps, experiment.batch_size, experiment.ema_decay) == (steps, batch, 0.9999)
    assert experiment.network.dropout == dropout
    assert (experiment.augment is not None) == flips
    beta = [float(experiment.process.schedule.between(t - 1, t, 0)[1]) for t in (1, 1000)]
    np.testing.assert_allclose(beta, [1e-4, 0.02], rtol=1e-4)
    rates = learning_rates(experiment, 9000)[jnp.array([0, 2500, 5000, 9000])]
    np.testing.assert_allclose(rates, [0, rate / 2, rate, rate], rtol=1e-4)


ROWS = [
    {"prediction": "mean", "loss": "bound", "variance": "learned"},
    {"prediction": "mean", "loss": "bound"},
    {"prediction": "mean"},
    {"loss": "bound", "variance": "learned"},
    {"loss": "bound"},
    {},
    {"variance": "fixed_small"},
]


class Convolution(nn.Module):
    """Replaces the U-Net, which has its own tests."""

    features: int

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return nn.Conv(self.features, (3, 3), kernel_init=nn.initializers.normal(0.02))(x)


@pytest.mark.parametrize("knobs", ROWS, ids=str)
def test_the_rows_of_table_2_fit_their_data_and_have_finite_losses_and_gradients(knobs):
    experiment = build(CIFAR, **knobs)
    experiment = dataclasses.replace(experiment, network=Convolution(experiment.network.out_channels))
    check_network(experiment)
    params = init_fn(experiment)(jax.random.key(0))
    batch = {"image": jnp.arange(64 * 3072, dtype=jnp.uint8).reshape(64, 32, 32, 3)}
    loss, grads = jax.jit(jax.value_and_grad(loss_fn(experiment)))(params, jax.random.key(1), batch)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(grads))


def test_the_figures_of_song_2021():
    """Song et al. 2021, Table 1, and the config of the released code for CelebA."""
    agrees = {row.what: row.agrees for row in verify(build("song_2021/celeba")) if row.agrees is not None}
    assert len(agrees) == 11 and all(agrees.values()), agrees


def test_only_the_aligned_pictures_of_celeba_are_cut_to_the_face(tmp_path):
    """In a picture of another size the same pixels are another part of it."""
    for name, (height, width) in {"aligned": (218, 178), "larger": (300, 300)}.items():
        (tmp_path / name).mkdir()
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[57:185, 25:153] = 200
        Image.fromarray(pixels).save(tmp_path / name / "000001.png")
    aligned, larger = (
        build("song_2021/celeba", folder_of_images=str(tmp_path / name)) for name in ("aligned", "larger")
    )
    assert np.all(aligned.data.open("train")[0]["image"] == 200)
    with pytest.raises(ValueError, match=r"000001\.png has 300x300 pixels, and the part .* of pictures of 218x178"):
        larger.data.open("train")[0]


def test_differences_from_the_released_code_are_knobs():
    plain, released = build(CIFAR), build(CIFAR, replicas=8, truncate=True)
    assert plain.gradient is jax.value_and_grad and released.gradient is not jax.value_and_grad
    x_0 = jnp.array([0.999])
    assert (int(plain.encoding.decode(x_0)[0]), int(released.encoding.decode(x_0)[0])) == (255, 254)


@pytest.mark.parametrize("name, knob", [(LSUN, "width"), (LSUN, "num_steps"), ("classifier", "num_steps")])
def test_zero_is_not_the_default(name, knob):
    with pytest.raises(ValueError, match=f"{knob} must be at least 1"):
        experiment = build(name, **{knob: 0})
        init_fn(experiment)(jax.random.key(0))


def test_a_learned_variance_requires_the_bound():
    with pytest.raises(ValueError, match="--variance learned requires --loss bound"):
        build(CIFAR, variance="learned")
