"""Progress of a command on the screen: bars on a terminal, lines elsewhere."""

from collections.abc import Iterator, Sequence

from tqdm import tqdm

from ddpm_jax.runs.reporter import Reporter, T


class Screen(Reporter):
    """Shows the progress of a command."""

    def __init__(self):
        self._bar: tqdm | None = None
        self._num_steps = 0

    def line(self, text: str) -> None:
        """Prints the line, above the bar if there is one."""
        if self._bar is None or self._bar.disable:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def track(self, items: Sequence[T], unit: str, total: int | None = None) -> Iterator[T]:
        """Yields the items and shows a bar, which counts `total` units."""
        total = len(items) if total is None else total
        with tqdm(total=total, unit=unit, disable=None, leave=False) as bar:
            for done, item in enumerate(items, start=1):
                yield item
                bar.update(total * done // len(items) - bar.n)

    def start_training(self, first: int, num_steps: int) -> None:
        """Starts the bar of training."""
        self._num_steps = num_steps
        self._bar = tqdm(total=num_steps, initial=first, unit="step", dynamic_ncols=True, disable=None)

    def trained(self, step: int, metrics: dict[str, float]) -> None:
        """Updates the bar; prints a line if there is no terminal for a bar, or if updates were skipped."""
        bar, images = self._bar, metrics["images_per_second"]
        if bar is None:
            return
        bar.update(step - bar.n)
        bar.set_postfix(loss=f"{metrics['loss']:.4f}", img_s=f"{images:.0f}")
        if bar.disable or "skipped" in metrics:
            extra = "".join(text.format(metrics[name]) for name, text in _EXTRA.items() if name in metrics)
            self.line(f"step {step}/{self._num_steps}  loss {metrics['loss']:.4f}  {images:.0f} images/s{extra}")

    def finish_training(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


_EXTRA = {
    "tflops_per_second": "  {:.3g} TFLOP/s",
    "utilisation": " ({:.0%} of peak)",
    "skipped": "  {:.0f} updates skipped",
}
