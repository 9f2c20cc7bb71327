"""FID, KID, Inception Score, precision, recall, density, coverage from the same features as torch-fidelity and prdc."""

import importlib

import numpy as np
import pytest

from ddpm_jax.metrics import frechet_distance, inception_score, kid_subsets, shares

torch = pytest.importorskip("torch")
import published  # noqa: E402, F401  (it skips without torch-fidelity and pytorch-fid)


def theirs(name: str):
    return importlib.import_module(f"torch_fidelity.metric_{name}")


def features(seed: int, num: int, dims: int = 48) -> np.ndarray:
    """Positive and correlated, as after a rectifier and an average."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(dims, dims)) / np.sqrt(dims)
    return np.maximum(random.normal(size=(num, dims)) @ mix + 0.3 + 0.1 * (seed % 2), 0).astype(np.float32)


A, B = features(0, 600), features(1, 500)


def test_frechet_distance():
    module = theirs("fid")
    statistics = [module.fid_features_to_statistics(torch.from_numpy(some)) for some in (A, B)]
    expected = module.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(A, B), expected, rtol=1e-6)
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    moments = [value for some in (A, B) for value in (some.mean(axis=0), np.cov(some, rowvar=False))]
    np.testing.assert_allclose(frechet_distance(A, B), fid_score.calculate_frechet_distance(*moments), rtol=1e-5)


def test_kid():
    expected = theirs("kid").kid_features_to_metric(
        torch.from_numpy(A), torch.from_numpy(B), kid_subsets=20, kid_subset_size=200, verbose=False
    )
    found = kid_subsets(A, B, subsets=20, size=200)
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-6)


def test_inception_score():
    logits = 3 * np.random.default_rng(0).normal(size=(503, 20)).astype(np.float32)
    found = inception_score(logits)
    expected = theirs("isc").isc_features_to_metric(torch.from_numpy(logits))
    np.testing.assert_allclose(found[:2], list(expected.values()), rtol=1e-6)


def test_precision_and_recall():
    expected = theirs("prc").prc_features_to_metric(torch.from_numpy(A), torch.from_numpy(B), verbose=False)
    found = shares(A, B)
    values = [found.precision.value, found.recall.value]
    np.testing.assert_allclose(values, [expected["precision"], expected["recall"]], atol=1e-6)
    assert min(values) > 0.05 and max(values) < 1


def test_density_and_coverage():
    prdc = pytest.importorskip("prdc")
    found = shares(A, B, k=5, closed=False)
    expected = prdc.compute_prdc(real_features=B, fake_features=A, nearest_k=5)
    for name, estimate in found._asdict().items():
        np.testing.assert_allclose(estimate.value, expected[name], atol=1e-6, err_msg=name)
