"""A reporter whose reports tests can read."""

from ddpm_jax.runs.reporter import Reporter


class Recorder(Reporter):
    """Keeps the lines and the items; Ctrl-C before the item number `last`, from 0."""

    def __init__(self, last: int | None = None):
        self.lines, self.items, self.last = [], [], last

    def line(self, text):
        self.lines.append(text)

    def track(self, items, unit, total=None):
        for item in items:
            if len(self.items) == self.last:
                raise KeyboardInterrupt
            self.items.append(item)
            yield item
