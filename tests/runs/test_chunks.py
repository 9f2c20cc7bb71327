"""Work in chunks: each is computed once, and as many of them as the time allows."""

import numpy as np
import pytest

from ddpm_jax.runs import chunks
from ddpm_jax.runs.chunks import Work, affordable, kept
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
