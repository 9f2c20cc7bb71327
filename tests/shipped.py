"""The shipped experiments at full size, each with the meshes on which it is planned for many devices."""

from typing import Any, NamedTuple

from ddpm_jax.experiment import Experiment
from ddpm_jax.runs import experiment_files


class Shipped(NamedTuple):
    """An experiment with some of its knobs."""

    name: str
    knobs: dict[str, Any]
    meshes: dict[str, str]
    """Accelerator -> mesh, for those on which it is planned with these knobs."""

    def build(self) -> Experiment:
        return experiment_files.read(experiment_files.find(self.name))(**self.knobs)

    def command(self) -> str:
        """The experiment and its knobs as on the command line."""
        knobs = (f"--{name} {value}".removesuffix(" True") for name, value in self.knobs.items())
        return " ".join([self.name, *knobs])


ON_DATA = {"v5e": "data=16", "H100": "data=8"}
LARGE = {"v5e": "data=4,fsdp=4", "H100": "data=8"}
BF16 = {"dtype": "bfloat16"}
IMAGES = "sohl_dickstein_2015/images"
SHIPPED = (
    Shipped("digits", {}, ON_DATA),
    Shipped("fashion_mnist", BF16, ON_DATA),
    Shipped("pictures", {"size": 64, **BF16}, ON_DATA),
    Shipped("ho_2020/cifar10", BF16, ON_DATA),
    Shipped("ho_2020/celeba_hq", BF16, LARGE),
    Shipped("ho_2020/lsun", {"large": True, "remat": True, **BF16}, {"v5e": LARGE["v5e"]}),  # else 16.7 GB, of 16
    Shipped("ho_2020/lsun", {"large": True, **BF16}, {"H100": LARGE["H100"]}),
    Shipped("nichol_2021/cifar10", BF16, ON_DATA),
    Shipped("nichol_2021/imagenet64", BF16, ON_DATA),
    Shipped("song_2021/celeba", BF16, ON_DATA),
    Shipped(IMAGES, {"data": "dead_leaves"}, ON_DATA),
    Shipped(IMAGES, {"data": "mnist"}, ON_DATA),
    Shipped(IMAGES, {"data": "cifar10"}, ON_DATA),
    Shipped("sohl_dickstein_2015/swiss_roll", {}, ON_DATA),
    Shipped("sohl_dickstein_2015/heartbeat", {}, ON_DATA),
)
