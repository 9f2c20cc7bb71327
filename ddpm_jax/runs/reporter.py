"""The interface through which long tasks report their progress."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


class Reporter:
    """Receives the progress of a long task. This one ignores it; `commands.screen.Screen` shows it."""

    def line(self, text: str) -> None:
        """Receives a line of text."""

    def track(self, items: Sequence[T], unit: str, total: int | None = None) -> Iterator[T]:
        """Yields the items; together they are `total` units, such as images. Default: an item is a unit."""
        yield from items

    def start_training(self, first: int, num_steps: int) -> None:
        """Training starts after step `first`."""

    def trained(self, step: int, metrics: dict[str, float]) -> None:
        """Receives the averages of the metrics since the last report.

        They are "loss", "grad_norm" and "images_per_second"; where known, "tflops_per_second" and "utilisation" (share
        of the peak); and "skipped", the number of skipped updates, if there were any.
        """

    def finish_training(self) -> None:
        """Training ends, whether all its steps are done or not."""
