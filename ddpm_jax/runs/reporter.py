"""Reports of progress, from what is done to a run to whoever shows them."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Reporter:
    """Receives the progress of a long task. This one ignores it; `commands.screen.Screen` shows it."""

    def line(self, text: str) -> None:
        """A line of text."""

    def track(self, items: Sequence[T], unit: str, size: int = 1) -> Iterator[T]:
        """The items, one by one; each counts as `size` of the unit."""
        yield from items

    def start_training(self, first: int, num_steps: int) -> None:
        """Training starts after step `first`."""

    def trained(self, step: int, metrics: dict[str, float]) -> None:
        """Averages since the last report: "loss", "images_per_second", and "tflops_per_second", "utilisation" (share
        of the peak) and "skipped" (updates) where there are any."""

    def finish_training(self) -> None:
        """Training has ended, finished or not."""
