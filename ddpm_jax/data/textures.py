"""Patches of the photographs of brick, grass and gravel in scikit-image's wheel, as textures."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ddpm_jax.data.dataset import Data, Example

NAMES = ("brick", "grass", "gravel")
STRIDE, TEST_COLUMNS = 4, 128
"""Pixels between two training patches, and columns at the right of each photograph for testing."""


def textures(size: int = 28) -> Data:
    """Patches, uint8 [size, size, 1], of three photographs of 512x512 pixels: brick, grass and gravel.

    Training patches are 4 pixels apart and overlap. Test patches do not overlap, and share no pixel with training
    patches. Opening a split raises FileNotFoundError if scikit-image, the extra [textures], is not installed. Raises
    ValueError unless `size` is 1 to 128.
    """
    if not 1 <= size <= TEST_COLUMNS:
        raise ValueError(f"size must be 1 to {TEST_COLUMNS} for textures, got {size}")
    return Data(name="textures", image_shape=(size, size, 1), open=partial(_open, size))


def _open(size: int, split: str) -> Sequence[Example]:
    try:
        from skimage import data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise FileNotFoundError('the textures are part of scikit-image: pip install "ddpm_jax[textures]"') from None
    photographs = np.stack([getattr(data, name)() for name in NAMES])
    columns = photographs.shape[2] - TEST_COLUMNS
    if split == "train":
        return _Patches(photographs[:, :, :columns], size, STRIDE)
    return _Patches(photographs[:, :, columns:], size, size)


@dataclass(frozen=True)
class _Patches(Sequence):
    photographs: np.ndarray
    """uint8 [num, height, width]."""
    size: int
    stride: int

    @property
    def _grid(self) -> tuple[int, int, int]:
        """The numbers of photographs, and of patches down and across each."""
        num, *sides = self.photographs.shape
        down, across = ((side - self.size) // self.stride + 1 for side in sides)
        return num, down, across

    def __len__(self) -> int:
        num, down, across = self._grid
        return num * down * across

    def __getitem__(self, index: int) -> Example:
        number, *patch = np.unravel_index(range(len(self))[index], self._grid)
        top, left = (int(n) * self.stride for n in patch)
        return {"image": self.photographs[number, top : top + self.size, left : left + self.size, None]}
