"""Files of torch.save without torch: read equal to what was saved, and nothing in them is executed."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from interop.models import GOLDEN

from ddpm_jax.interop import torch_files

FILES = ("tensors.pt", "tensors_old.pt")
"""The same tensors, which torch 2.13 wrote in its format and in that before 2020 (`test_openai_parity.py`)."""


@pytest.mark.parametrize("name", FILES)
def test_what_torch_saved_is_read(name):
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {"whole": whole, "transposed": whole.T, "half": whole.astype(np.float16), "parameter": whole[1]}
    found = torch_files.read(GOLDEN / name)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype


class Payload:
    """A pickle that creates the file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


class Call:
    """A pickle that calls a function by its name."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def zipped(file: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **options) -> Path:
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return file


def old(file: Path, pickled: bytes) -> Path:
    header = [pickle.dumps(each, 2) for each in (torch_files.MAGIC, 1001, {"little_endian": True})]
    file.write_bytes(b"".join([*header, pickled]))
    return file


@pytest.mark.parametrize("write", [zipped, old])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_that_would_execute_is_refused_and_nothing_runs(write, nested, tmp_path):
    payload = Payload(tmp_path / "executed")
    file = write(tmp_path / "file.pt", pickle.dumps(OrderedDict(a=[payload]) if nested else payload, 2))
    with pytest.raises(ValueError, match=r"names (pathlib|getattr|builtins|__builtin__).*, which could execute code"):
        torch_files.read(file)
    assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


@pytest.mark.parametrize(
    "function, arguments",
    [(eval, ("1",)), (getattr, (1, "real")), (np.dtype, ("f4",)), (pickle.loads, (b"N.",)), (type, (1,))],
    ids=["eval", "getattr", "dtype", "loads", "type"],
)
def test_no_function_but_those_of_tensors_is_called(function, arguments, tmp_path):
    file = zipped(tmp_path / "file.pt", pickle.dumps({"a": Call(function, *arguments)}, 2))
    with pytest.raises(ValueError, match=rf"{function.__name__}, which could execute code"):
        torch_files.read(file)


def tensor_pickle(offset: int, shape: tuple, strides: tuple, size: int = 4, kind: str = "FloatStorage") -> bytes:
    """The pickle of {"a": a tensor}, as torch writes it, from its opcodes."""

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def row(values: tuple) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\n" + kind.encode() + b"\nX\x01\0\0\x000X\x03\0\0\0cpu" + number(size) + b"tQ"
    arguments = b"(" + storage + number(offset) + row(shape) + row(strides) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_a_tensor_written_by_hand_is_read(tmp_path):
    numbers = np.arange(4, dtype=np.float32)
    file = zipped(tmp_path / "file.pt", tensor_pickle(1, (3,), (1,)), {"0": numbers.tobytes()})
    np.testing.assert_array_equal(torch_files.read(file)["a"], [1, 2, 3])


@pytest.mark.parametrize(
    "pickled, message",
    [
        (tensor_pickle(1, (4,), (1,)), "reaches beyond the 4 numbers"),
        (tensor_pickle(0, (2**30, 2**20), (0, 0)), "more numbers than its storage, 4"),
        (tensor_pickle(2, (2,), (2,)), "reaches beyond"),
        (tensor_pickle(0, (2,), (-1,)), "has strides"),
        (tensor_pickle(-1, (2,), (1,)), "offset -1"),
        (tensor_pickle(0, (2, 2), (1,)), "has strides"),
        (tensor_pickle(0, (5,), (1,), size=5), "has not 5 numbers"),
        (tensor_pickle(0, (2,), (1,), kind="DoubleStorage"), "has not 4 numbers of type float64"),
        (tensor_pickle(0, (2,), (1,), kind="QInt8Storage"), r"names torch\.QInt8Storage"),
    ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(pickled, message, tmp_path):
    file = zipped(tmp_path / "file.pt", pickled, {"0": bytes(16)})
    with pytest.raises(ValueError, match=message):
        torch_files.read(file)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gets_one_message_wherever_it_is_damaged(name, tmp_path):
    whole = (GOLDEN / name).read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "file.pt").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\.pt"):
            torch_files.read(tmp_path / "file.pt")


@pytest.mark.parametrize("name", FILES)
def test_any_changed_bytes_are_read_or_refused_with_the_path(name, tmp_path):
    """Bytes at random, most of them in the headers of the archive, where they also mean encryption and compression."""
    whole = np.frombuffer((GOLDEN / name).read_bytes(), np.uint8)
    for seed in range(400):
        random, damaged = np.random.default_rng(seed), whole.copy()
        damaged[random.integers(0, len(whole), 2)] = random.integers(0, 256, 2)
        (tmp_path / "file.pt").write_bytes(damaged.tobytes())
        try:
            torch_files.read(tmp_path / "file.pt")
        except ValueError as error:
            assert "file.pt" in str(error) and "\n" not in str(error)


DAMAGES = {
    "memo": (b"\x80\x02}r\x40\x42\x0f\0.", "no 1000000 objects"),  # LONG_BINPUT
    "text memo": (b"\x80\x02}p1000000\n.", "no 1000000 objects"),  # PUT
    "bytes": (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"ab.", "bytes"),  # BINBYTES8
    "bytearray": (b"\x80\x05\x96" + (2**62).to_bytes(8, "little") + b"ab.", "bytes"),  # BYTEARRAY8
    "lines": (b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.", r"names a b\.c"),  # STACK_GLOBAL
    "attribute": (b"\x80\x02ccollections\nOrderedDict\n)RX\1\0\0\0aK\1s}X\5\0\0\0itemsK\1sb.", "holds a int"),  # BUILD
}
"""Pickles that ask for much memory, or for a message of several lines or none, and part of the message they get."""


@pytest.mark.parametrize("write", [zipped, old])
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_pickle_gets_one_line(write, name, tmp_path):
    pickled, message = DAMAGES[name]
    file = write(tmp_path / "file.pt", pickled + (pickle.dumps([], 2) if write is old else b""))
    with pytest.raises(ValueError, match=rf"file\.pt .*{message}") as caught:
        torch_files.read(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_entry_is_refused_before_it_is_decompressed(method, tmp_path):
    """So damaged compressed bytes raise none of the three libraries' errors, and no small file expands."""
    pickled = pickle.dumps({"a": bytes(10_000)}, 2)
    content = bytearray(zipped(tmp_path / "file.pt", pickled, compression=method).read_bytes())
    content[60:70] = b"\xff" * 10
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pt .*data\.pkl in the zip archive is compressed"):
        torch_files.read(tmp_path / "file.pt")


@pytest.mark.parametrize("at, value, message", [(8, 1, "encrypted"), (10, 99, "compressed"), (6, 99, "version")])
def test_an_entry_that_zipfile_cannot_read_is_refused_with_the_path(at, value, message, tmp_path):
    """Flags, method and version of the entry's record in the archive's directory."""
    content = bytearray(zipped(tmp_path / "file.pt", tensor_pickle(0, (2,), (1,))).read_bytes())
    content[content.index(b"PK\1\2") + at] = value
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"file\.pt .*{message}"):
        torch_files.read(tmp_path / "file.pt")


def test_a_tensor_whose_storage_the_old_format_does_not_list_is_refused(tmp_path):
    content = old(tmp_path / "file.pt", tensor_pickle(0, (2,), (1,)) + pickle.dumps([], 2))
    with pytest.raises(ValueError, match="list of storages is not that of its tensors"):
        torch_files.read(content)


def test_a_changed_byte_in_a_tensor_is_noticed(tmp_path):
    content = bytearray((GOLDEN / "tensors.pt").read_bytes())
    where = content.index(np.arange(12, dtype=np.float32).tobytes())
    content[where + 5] ^= 1
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.pt is damaged: Bad CRC-32"):
        torch_files.read(tmp_path / "file.pt")


@pytest.mark.parametrize(
    "content, message",
    [
        ([1], "holds a list, not tensors by name"),
        ({}, "not tensors by name"),
        ({"step": 3}, "holds a int under 'step'"),
        ({"ema": {"a": 1}}, "holds a dict under 'ema'"),
    ],
)
def test_what_is_no_state_dict_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        torch_files.read(zipped(tmp_path / "file.pt", pickle.dumps(content, 2)))
