"""Work in chunks: each is computed once, and as many of them as the time allows."""

import numpy as np
import pytest

from ddpm_jax.runs import chunks
from ddpm_jax.runs.chunks import Work, affordable, kept
from ddpm_jax.runs.quick import time_and_batch
from ddpm_jax.runs.reporter import Reporter


def squares(num: int, calls: list[list[int]], size: int = 3, together: int = 2, take=lambda: None) -> Work:
    def compute(firsts):
        calls.append(list(firsts))
        take()
        return [{"square": np.arange(first, min(first + size, num)) ** 2} for first in firsts]

    return Work(num, size, compute, together)


def test_results_come_in_order_and_are_computed_once(tmp_path):
    calls = []
    for _ in range(2):
        results = kept(squares(11, calls), tmp_path)
        np.testing.assert_array_equal(np.concatenate([each["square"] for each in results]), np.arange(11) ** 2)
    assert calls == [[0, 3], [6, 9]]


def test_more_items_of_the_same_work_are_added_to_those_that_are_kept(tmp_path):
    calls = []
    for num in (6, 11):
        results = list(kept(squares(num, calls), tmp_path))
    np.testing.assert_array_equal(np.concatenate([each["square"] for each in results]), np.arange(11) ** 2)
    assert calls == [[0, 3], [6, 9]]


def test_the_progress_counts_the_missing_items_only(tmp_path):
    """Of 11 items in chunks of three, six are kept already, and the last chunk has two."""

    class Counts(Reporter):
        def track(self, items, unit, total=None):
            totals.append((unit, total))
            yield from items

    totals = []
    list(kept(squares(6, []), tmp_path))
    list(kept(squares(11, [])._replace(unit="image"), tmp_path, Counts()))
    assert totals == [("image", 5)]


@pytest.mark.parametrize(
    ("seconds", "compilation", "items"),
    [(10.0, 4, 6 * 6), (10.0, 12, 6), (10.0, 8.5, 2 * 6), (1e4, 4, 100), (2.0, 0, 2 * 6)],
)
def test_as_many_as_the_time_allows(tmp_path, monkeypatch, seconds, compilation, items):
    """A round of six items takes one second, the first one longer by the compilation."""
    now, calls = [0.0], []

    def take():
        now[0] += 1 + compilation * (len(calls) == 1)

    monkeypatch.setattr(chunks.time, "monotonic", lambda: now[0])
    assert affordable(squares(100, calls, take=take), tmp_path, seconds, Reporter()) == items


def test_rounds_of_an_interrupted_call_are_not_taken_for_fast_ones(tmp_path, monkeypatch):
    """Two rounds are kept already: the next two are measured, and six more seconds allow five more rounds."""
    now, calls = [0.0], []
    list(kept(squares(12, []), tmp_path))

    def take():
        now[0] += 1

    monkeypatch.setattr(chunks.time, "monotonic", lambda: now[0])
    assert affordable(squares(100, calls, take=take), tmp_path, 7.0, Reporter()) == (2 + 7) * 6
    assert calls == [[12, 15], [18, 21]]


@pytest.mark.parametrize(
    ("rate", "images", "shape", "expected"),
    [
        (None, 1000, (8, 8, 1), (30.0, 120)),
        (1e6, 10**12, (8, 8, 1), (1e5, 120)),
        (1e6, 10**12, (256, 256, 3), (1e5, 7)),
        (800.0, 8000, (28, 28, 1), (30.0, 6)),
        (1.0, 100, (28, 28, 1), (30.0, 1)),
    ],
)
def test_the_quick_estimate_takes_a_tenth_of_the_time_or_half_a_minute(rate, images, shape, expected):
    """A tenth of the time for a chunk of 50 terms an example, on one of eight devices; and 120 examples at most."""
    assert time_and_batch(rate, images, shape) == pytest.approx(expected)
