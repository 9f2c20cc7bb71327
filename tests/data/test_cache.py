"""The cache of decoded pixels: what is found there is what was kept, or nothing."""

import numpy as np
import pytest

from ddpm_jax.data import cache

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 2), np.uint8)


def test_what_was_kept_is_found_under_its_key_and_shape_only():
    cache.keep("key", PIXELS)
    np.testing.assert_array_equal(cache.find("key", PIXELS.shape), PIXELS)
    assert cache.find("other", PIXELS.shape) is None and cache.find("key", (5, 4, 3, 1)) is None
    (cache.folder() / "key").rename(cache.folder() / "other")
    assert cache.find("other", PIXELS.shape) is None


def test_no_damage_goes_unnoticed():
    cache.keep("key", PIXELS)
    path, random = cache.folder() / "key", np.random.default_rng(1)
    whole = path.read_bytes()
    for _ in range(100):
        damaged = bytearray(whole)
        bit = random.integers(8 * len(whole))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged if random.random() < 0.7 else whole[: random.integers(len(whole))])
        assert cache.find("key", PIXELS.shape) is None


@pytest.mark.parametrize("obstacle", ["file", "device"])
def test_a_folder_that_cannot_be_written_does_no_harm(cache_folder, monkeypatch, obstacle):
    if obstacle == "file":
        (cache_folder / "ddpm_jax").write_text("in the way")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    cache.keep("key", PIXELS)
    assert cache.find("key", PIXELS.shape) is None


def test_other_users_cannot_read_the_pixels():
    cache.keep("key", PIXELS)
    assert cache.folder().stat().st_mode & 0o077 == 0


def test_the_cache_deletes_what_was_not_used_for_longest(monkeypatch):
    monkeypatch.setattr(cache, "CAPACITY", 3 * (PIXELS.size + cache.DIGEST_BYTES))
    for key in "abc":
        cache.keep(key, PIXELS)
    assert cache.find("a", PIXELS.shape) is not None
    cache.keep("d", PIXELS)
    assert {path.name for path in cache.folder().iterdir()} == {"a", "c", "d"}
