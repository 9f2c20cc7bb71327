"""The order in which a run reads its data: whole epochs, shuffled, entered anywhere."""

from itertools import islice

import jax
import numpy as np
import pytest

from ddpm_jax.data import digits, indices, load, stream


def rows(size: int) -> list[dict[str, np.ndarray]]:
    return [{"image": np.full((1, 1, 1), i, np.uint8), "label": np.int32(i)} for i in range(size)]


def streamed(size: int, batch: int, steps: int, seed: int = 0, start: int = 0) -> np.ndarray:
    return np.stack([b["label"] for b in islice(stream(rows(size), batch, seed, start), steps)])


def resident(size: int, batch: int, steps: int, seed: int = 0, start: int = 0) -> np.ndarray:
    return indices(size, batch, seed)(start, steps)


@pytest.mark.parametrize("read", [streamed, resident])
class TestOrder:
    def test_each_epoch_holds_each_example_once_in_an_order_of_its_own(self, read):
        epochs = read(20, 6, 10).reshape(3, 20)
        assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3 and tuple(range(20)) not in {tuple(e) for e in epochs}

    @pytest.mark.parametrize("start", [1, 3, 7])
    def test_entered_at_any_step_it_goes_on_as_if_read_from_the_start(self, read, start):
        np.testing.assert_array_equal(read(20, 6, 3, start=start), read(20, 6, 10)[start : start + 3])

    def test_another_seed_is_another_order(self, read):
        assert not np.array_equal(read(20, 6, 3, seed=0), read(20, 6, 3, seed=1))


def test_a_stream_has_the_order_of_data_on_the_device():
    np.testing.assert_array_equal(streamed(20, 6, 10, seed=3, start=2), resident(20, 6, 10, seed=3, start=2))


def test_steps_of_one_call_are_those_of_many():
    at = indices(20, 6, seed=0)
    np.testing.assert_array_equal(at(2, 5), np.concatenate([at(step, 1) for step in range(2, 7)]))


def test_loading_keeps_order_and_types():
    whole = load(rows(5))
    np.testing.assert_array_equal(whole["label"], range(5))
    assert whole["image"].shape == (5, 1, 1, 1) and whole["image"].dtype == np.uint8


def test_digits_are_split_without_overlap_and_keep_their_levels():
    train, test = (load(digits().open(split)) for split in ("train", "test"))
    assert (len(train["image"]), len(test["image"])) == (1437, 360)
    assert train["image"].max() == digits().levels - 1 and train["image"].min() == 0
    together = {image.tobytes() for image in train["image"]} & {image.tobytes() for image in test["image"]}
    assert not together
    assert set(test["label"]) == set(range(10))


def test_digits_are_the_same_read_by_scikit_learn(monkeypatch):
    ours = load(digits().open("train"))
    monkeypatch.setitem(digits.__globals__, "SCANS", "where/a/later/scikit-learn/has/none")
    jax.tree.map(np.testing.assert_array_equal, ours, load(digits().open("train")))


@pytest.mark.parametrize("shares", [[[0, 1, 2], [3, 4, 5]], [[0, 4], [1, 2], [3, 5]]])
def test_processes_read_their_rows_of_the_same_batches(shares):
    """Put together they are what one process reads, from whichever step on."""
    whole = stream(rows(20), 6, seed=0, start=2)
    parts = [stream(rows(20), 6, seed=0, start=2, rows=np.array(share), workers=2) for share in shares]
    for _ in range(5):
        batch = next(whole)["label"]
        for share, part in zip(shares, parts, strict=True):
            np.testing.assert_array_equal(next(part)["label"], batch[share])
