"""Outputs of samples: an interrupted one resumes and ends in the same bytes, and memory does not grow with it."""

import os
import tracemalloc

import numpy as np
import pytest

from ddpm_jax.runs.chunks import Work
from ddpm_jax.runs.outputs import Output, discard_part, write
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.system.locks import locked

PROVENANCE = {"seed": 0, "num": 10, "parameters": "abc"}
NAMES = ["grid.png", "images.npz", "folder"]


class Killed(BaseException):
    """Ends a call as a signal would."""


def draws(fuel: int = 1000, drawn: list[int] | None = None, size: int = 4, num: int = 10, side: int = 6) -> Work:
    """Images that depend on their number only; after `fuel` batches the process is killed."""

    def at(first: int) -> np.ndarray:
        if drawn is not None:
            drawn.append(first)
        if drawn is not None and len(drawn) > fuel:
            raise Killed
        numbers = range(first, min(first + size, num))
        return np.stack([np.random.default_rng(n).integers(0, 256, (side, side, 3), np.uint8) for n in numbers])

    return Work(num, size, lambda firsts: [{"images": at(first)} for first in firsts])


def content(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (sorted(out.iterdir()) if out.is_dir() else [out])}


def put(out, drawn: Work, overwrite: bool = False, **changes) -> None:
    labels = np.arange(drawn.num, dtype=np.int32)
    write(Output(out, PROVENANCE | changes, overwrite), drawn, labels, Reporter())


@pytest.mark.parametrize("name", NAMES)
def test_killed_after_each_batch_is_never_killed(tmp_path, name):
    put(tmp_path / "whole" / name, draws())
    out, calls = tmp_path / "killed" / name, []
    for _ in range(2):
        drawn = []
        with pytest.raises(Killed):
            put(out, draws(1, drawn))
        calls += drawn
        assert not out.exists()
    put(out, draws(drawn=calls))
    assert calls == [0, 4, 4, 8, 8]  # each batch once, and each at which it was killed once more
    assert content(out) == content(tmp_path / "whole" / name)
    assert os.listdir(out.parent) == [name]  # nothing is left beside it
    assert Output(out, PROVENANCE).holds_images()


@pytest.mark.parametrize("name", NAMES)
def test_other_parameters_are_other_images(tmp_path, name):
    """Two models of one name, drawn to one file: the second does not keep the picture of the first."""
    put(tmp_path / name, draws())
    assert not Output(tmp_path / name, PROVENANCE | {"parameters": "def"}).holds_images()
    before = content(tmp_path / name)
    with pytest.raises(ValueError, match="exists and holds something else"):
        put(tmp_path / name, draws(), parameters="def")
    assert content(tmp_path / name) == before
    put(tmp_path / name, draws(), overwrite=True, parameters="def")
    assert Output(tmp_path / name, PROVENANCE | {"parameters": "def"}).holds_images()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_appears_in_the_meantime_is_not_replaced(tmp_path, name):
    def compute(firsts):
        (tmp_path / name).write_text("thesis")
        return draws().compute(firsts)

    with pytest.raises(ValueError, match="exists"):
        put(tmp_path / name, draws()._replace(compute=compute))
    assert (tmp_path / name).read_text() == "thesis"


def test_a_batch_that_was_cut_short_is_drawn_again(tmp_path):
    out = tmp_path / "images.npz"
    with pytest.raises(Killed):
        put(out, draws(2, []))
    kept = sorted(tmp_path.rglob("*.npz"))
    os.truncate(kept[0], kept[0].stat().st_size // 2)
    drawn = []
    put(out, draws(drawn=drawn))
    assert drawn == [0, 8]
    np.testing.assert_array_equal(
        np.load(out)["arr_0"], np.concatenate([each["images"] for each in draws().compute([0, 4, 8])])
    )
    np.testing.assert_array_equal(np.load(out)["arr_1"], np.arange(10))


@pytest.mark.parametrize("name", ["images.npz", "folder"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, name):
    def peak(num: int) -> int:
        tracemalloc.start()
        put(tmp_path / str(num) / name, draws(num=num, side=64), num=num)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(8)  # imports
    assert peak(160) < peak(16) + 64 * 64 * 3 * 8  # the 144 images more take 72 times that


@pytest.mark.parametrize("name", NAMES)
def test_what_a_kill_after_the_end_has_left_is_removed(tmp_path, name):
    put(tmp_path / name, draws())
    output = Output(tmp_path / name, PROVENANCE)
    output.part.mkdir()
    discard_part(output)
    assert os.listdir(tmp_path) == [name]


def test_two_processes_do_not_draw_the_same_output(tmp_path):
    with pytest.raises(Killed):
        put(tmp_path / "folder", draws(1, []))
    (part,) = tmp_path.iterdir()
    with locked(part / ".lock"), pytest.raises(ValueError, match="is in use by process"):
        put(tmp_path / "folder", draws())
