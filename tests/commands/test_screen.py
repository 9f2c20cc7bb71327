"""The bars of a terminal."""

import io
import sys

import pytest
from tqdm import tqdm

from ddpm_jax.commands import screen


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("items", "total"), [(26, 808), (3, None), (0, 0), (4, 2)])
def test_a_bar_ends_at_its_total(monkeypatch, items, total):
    """Also where the last item has fewer units than the others."""
    ends = []

    class Watched(tqdm):
        def close(self):
            ends.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(screen, "tqdm", Watched)
    assert list(screen.Screen().track(range(items), "image", total)) == list(range(items))
    expected = items if total is None else total
    assert ends[0] == (expected, expected)
