"""Square patches of photographs, cut so that the splits share no pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ddpm_jax.data.dataset import Example

TEST_COLUMNS = 128
"""The columns at the right of each photograph from which the test patches are cut."""


def check_size(name: str, size: int) -> None:
    """Raises ValueError unless test patches of `size` pixels fit into the test columns."""
    if not 1 <= size <= TEST_COLUMNS:
        raise ValueError(f"size must be 1 to {TEST_COLUMNS} for {name}, got {size}")


def cut(photographs: Sequence[np.ndarray], split: str, size: int, stride: int, labels: bool = False) -> "Patches":
    """The patches of a split, of photographs uint8 [height, width, channels] that may differ in size.

    Test patches are those of the last `TEST_COLUMNS` columns, and do not overlap. Training patches are those of the
    other columns, `stride` pixels apart. With `labels`, examples have the number of their photograph as label.
    """
    if split == "train":
        return Patches([each[:, :-TEST_COLUMNS] for each in photographs], size, stride, labels)
    return Patches([each[:, -TEST_COLUMNS:] for each in photographs], size, size, labels)


@dataclass(frozen=True, eq=False)
class Patches(Sequence):
    """The patches of each photograph in turn, row by row."""

    photographs: Sequence[np.ndarray]
    size: int
    stride: int
    labels: bool = False

    @cached_property
    def _grids(self) -> list[tuple[int, ...]]:
        """The numbers of patches down and across each photograph."""
        return [tuple((side - self.size) // self.stride + 1 for side in each.shape[:2]) for each in self.photographs]

    @cached_property
    def _ends(self) -> np.ndarray:
        """The number of patches up to the end of each photograph."""
        return np.cumsum([np.prod(grid) for grid in self._grids])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        number = int(np.searchsorted(self._ends, index, side="right"))
        first = self._ends[number - 1] if number else 0
        top, left = (int(n) * self.stride for n in np.unravel_index(index - first, self._grids[number]))
        image = self.photographs[number][top : top + self.size, left : left + self.size]
        return {"image": image, "label": np.asarray(number, np.int32)} if self.labels else {"image": image}
