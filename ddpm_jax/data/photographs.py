"""Colour patches of photographs that come with Python packages."""

from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_jax.data.dataset import Data
from ddpm_jax.data.patches import Patches, check_size, cut

FILES = {
    "astronaut": ("scikit-image", "skimage/data/astronaut.png"),
    "chelsea": ("scikit-image", "skimage/data/chelsea.png"),
    "china": ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    "coffee": ("scikit-image", "skimage/data/coffee.png"),
    "flower": ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    "hubble_deep_field": ("scikit-image", "skimage/data/hubble_deep_field.jpg"),
    "ihc": ("scikit-image", "skimage/data/ihc.png"),
    "motorcycle": ("scikit-image", "skimage/data/motorcycle_left.png"),
    "rocket": ("scikit-image", "skimage/data/rocket.jpg"),
}
"""The package that each photograph comes with, and its file there. The names are sorted, as folders of classes are."""


def photographs(size: int = 32, stride: int | None = None, names: tuple[str, ...] = tuple(FILES)) -> Data:
    """Colour patches, uint8 [size, size, 3], of up to ten photographs; the label is the number of the photograph.

    The ten are of people, a cat, a temple, coffee, a flower, galaxies, stained tissue, a motorcycle and a rocket. At
    32x32 they have 2,496 patches for training and 608 for testing. By default no two patches share a pixel, so they may
    be split anew. A `stride` below `size` makes more training patches, which overlap each other but no test patch.

    Opening a split raises FileNotFoundError if a package is missing. Three photographs come with packages that are
    always installed: "china", "flower" and "grace_hopper"; all others need scikit-image, the extra [textures].

    Args:
        size: Height and width of the patches, 1 to 128.
        stride: Pixels between two training patches. Default: `size`.
        names: The photographs, keys of `FILES`, in the order of their labels.

    Raises:
        ValueError: for a size out of range, a stride below 1, or a name that is not known.
    """
    check_size("photographs", size)
    if stride is not None and stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    unknown = [name for name in names if name not in FILES]
    if unknown or not names:
        raise ValueError(f"names must be of {', '.join(FILES)}, got {', '.join(unknown) or 'none'}")
    return Data(
        name="photographs",
        image_shape=(size, size, 3),
        open=partial(_open, size, stride or size, names),
        num_classes=len(names),
    )


def _open(size: int, stride: int, names: tuple[str, ...], split: str) -> Patches:
    return cut([_read(name) for name in names], split, size, stride, labels=True)


def _read(name: str) -> np.ndarray:
    """The pixels, uint8 [height, width, 3], read from the package's file: the packages take seconds to import."""
    package, path = FILES[name]
    wanted = '"ddpm_jax[textures]"' if package == "scikit-image" else package
    try:
        file = Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise FileNotFoundError(f"the photograph {name} is part of {package}: pip install {wanted}") from None
    with Image.open(file) as picture:
        return np.asarray(picture.convert("RGB"))
