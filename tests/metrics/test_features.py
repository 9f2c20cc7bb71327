"""Features in batches, and files of statistics: nothing lost, in order, and readable by others."""

import json

import jax
import numpy as np
import pytest

from ddpm_jax.metrics import Statistics, extract, moments, pixels, read_images, read_statistics, write_statistics

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 4, 5, 3)).astype(np.uint8)


@pytest.mark.parametrize("sizes", [[23], [1, 0, 9, 13], [10, 13]])
def test_features_do_not_depend_on_chunks_and_batches_and_compile_once(sizes):
    traces = []

    @jax.jit
    def both(images):
        traces.append(images.shape)
        return {"pixels": pixels(images), "mean": images.mean(axis=(1, 2))}

    chunks = np.split(IMAGES, np.cumsum(sizes)[:-1])
    found = extract(both, chunks, batch=4)
    np.testing.assert_allclose(found["pixels"], IMAGES.reshape(23, -1) / 255, rtol=1e-6)
    np.testing.assert_allclose(found["mean"], IMAGES.mean(axis=(1, 2)), rtol=1e-5)
    assert traces == [(4, 4, 5, 3)]


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="no images"):
        extract(pixels, [IMAGES[:0]])


def test_statistics_come_back_with_what_made_them(tmp_path):
    features = extract(pixels, [IMAGES])
    kept = Statistics(moments(features), moments(features[:, :3]), {"split": "train", "num": 23})
    write_statistics(tmp_path / "reference.npz", kept, IMAGES)
    read = read_statistics(tmp_path / "reference.npz")
    jax.tree.map(np.testing.assert_array_equal, read[:2], kept[:2])
    assert read.made == kept.made and read.pool.count == 23
    np.testing.assert_array_equal(read_images(tmp_path / "reference.npz"), IMAGES)
    # the names that pytorch-fid and the evaluator of Dhariwal & Nichol 2021 index, which allow no pickle
    with np.load(tmp_path / "reference.npz") as arrays:
        assert {"mu", "sigma", "mu_s", "sigma_s", "arr_0"} <= set(arrays.files)
        np.testing.assert_allclose(arrays["sigma"], np.cov(features.astype(np.float64), rowvar=False), atol=1e-12)
        assert json.loads(str(arrays["made"])) == kept.made


def test_statistics_of_others_have_no_count(tmp_path):
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(2), sigma=np.eye(2, dtype=np.float32))
    read = read_statistics(tmp_path / "theirs.npz")
    assert read.spatial is None and read.made is None and read.pool.count is None
    np.testing.assert_array_equal(read.pool.covariance, np.eye(2))


def test_other_files_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "images.npz", arr_0=IMAGES)
    np.savez(tmp_path / "odd.npz", mu=np.zeros(2), sigma=np.eye(3))
    np.save(tmp_path / "array.npy", IMAGES)
    np.savez(tmp_path / "pickle.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    (tmp_path / "text.npz").write_text("no archive")
    errors = {"images": "found arr_0", "odd": "no covariance", "text": "no npz file", "pickle": "pickle"}
    for name, message in errors.items():
        with pytest.raises(ValueError, match=message):
            read_statistics(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match="single array"):
        read_statistics(tmp_path / "array.npy")
    with pytest.raises(ValueError, match="no images"):
        read_images(tmp_path / "odd.npz")
