"""Precision, recall, density, coverage: by brute force, in limits, in blocks of any size."""

import numpy as np
import pytest

from ddpm_jax.metrics import manifold, shares


def values(found: manifold.Shares) -> list[float]:
    return [estimate.value for estimate in found]


def cloud(seed: int, num: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(num, 3)) + shift).astype(np.float32)


def by_loops(generated: np.ndarray, real: np.ndarray, k: int) -> list[float]:
    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - other) for j, other in enumerate(x) if j != i)[k - 1]

    balls = {name: [radius(x, i) for i in range(len(x))] for name, x in (("real", real), ("generated", generated))}
    hit = np.array([[np.linalg.norm(x - g) <= r for g in generated] for x, r in zip(real, balls["real"], strict=True)])
    back = np.array(
        [[np.linalg.norm(x - g) <= r for x in real] for g, r in zip(generated, balls["generated"], strict=True)]
    )
    return [hit.any(0).mean(), back.any(0).mean(), hit.sum() / (k * len(generated)), hit.any(1).mean()]


@pytest.mark.parametrize(("at_once", "ks"), [(11, [3]), (1024, [1, 3, 5])])
def test_the_definition_in_blocks_of_any_size(at_once, ks, monkeypatch):
    monkeypatch.setattr(manifold, "AT_ONCE", at_once)
    generated, real = cloud(0, 31, 0.7), cloud(1, 23)
    for k in ks:
        np.testing.assert_allclose(values(shares(generated, real, k)), by_loops(generated, real, k), rtol=1e-6)


def test_limits():
    real = cloud(0, 50)
    np.testing.assert_allclose(values(shares(real, real + np.float32(1e-6)))[:2], 1)
    assert values(shares(real + 100, real)) == [0, 0, 0, 0]
    collapsed = np.repeat(real[:1], 50, axis=0) + np.float32(1e-4) * cloud(2, 50)
    precision, recall, _, coverage = values(shares(collapsed, real))
    assert precision == 1 and recall <= 0.1 and coverage <= 0.3


def test_an_open_ball_has_no_boundary():
    """Beside a grid of step 1, on the boundary of the balls of its edge."""
    grid = np.float32([[i, j] for i in range(4) for j in range(4)]) - np.float32(1.5)
    edge = np.float32([[2.5, -1.5], [2.5, -0.5], [2.5, 0.5], [2.5, 1.5]])
    assert values(shares(edge, grid, 1))[0] == 1 and values(shares(edge, grid, 1, closed=False))[0] == 0


def test_density_and_coverage_of_the_same_distribution():
    """E density = 1 and E coverage = 1 - (n - 1)...(n - k) / ((2n - 1)...(2n - k)) (Naeem et al. 2020, Section 3.2)."""
    k, n = 5, 200
    found = np.mean([values(shares(cloud(2 * s, n), cloud(2 * s + 1, n), k, closed=False)) for s in range(20)], axis=0)
    steps = np.arange(1, k + 1)
    np.testing.assert_allclose(found[2], 1, atol=0.03)
    np.testing.assert_allclose(found[3], 1 - np.prod((n - steps) / (2 * n - steps)), atol=0.01)


def test_the_error_is_near_the_spread_of_repetitions():
    found = [shares(cloud(2 * s, 200, 0.5), cloud(2 * s + 1, 200), blocks=10 if s < 6 else 0) for s in range(40)]
    for name in manifold.Shares._fields:
        spread = np.std([getattr(each, name).value for each in found], ddof=1)
        error = np.sqrt(np.mean([getattr(each, name).error ** 2 for each in found[:6]]))
        assert 0.5 < error / spread < 2.2, name
    assert np.isnan(found[-1].recall.error)


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match=r"over k \+ 1 = 4 vectors, got 4 and 9"):
        shares(cloud(0, 4), cloud(1, 9))
