"""Files of ``torch.save`` with tensors by name, read without PyTorch and without executing anything.

Such a file contains a pickle, and a pickle is a program: it can call any function that it names. `read` admits the few
names that tensors need, and refuses all others. It reads both formats: the zip archive that PyTorch has written since
2020, and the one before.
"""

import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""PyTorch's names of the types of storages, which are one-dimensional arrays that tensors are views of."""
MAGIC = 0x1950A86A20F9469CFC6C
"""The first object in a file of the format before 2020."""
FAULTS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,  # an entry that is encrypted, or of an unknown version
    TypeError,
    ValueError,
)
"""The exceptions of a damaged file, apart from errors of the system."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file of ``torch.save`` by name, such as those of a ``state_dict``.

    Their shapes are the shapes of the file. bfloat16 becomes float32. Raises ValueError, with the path, for a file that
    is damaged, is no such file, holds something else than tensors by name, or has a pickle that names anything but
    tensors.
    """
    try:
        content = _zipped(path) if zipfile.is_zipfile(path) else _plain(path)
    except MemoryError:
        raise ValueError(f"{path} is damaged or too large: it declares more bytes than fit into memory") from None
    except (*FAULTS, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:  # the file does not exist, or may not be read
            raise
        raise ValueError(f"{path} {_reason(error)}") from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} holds a {type(content).__name__}, not tensors by name: save a state_dict")
    tensors = dict(dict.items(content))  # not content.items: a pickle can set this attribute of an OrderedDict
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            kind = "a tensor" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
            raise ValueError(f"{path} holds {kind} under {name!r}, not tensors by name: save a state_dict alone")
    return {name: _known(tensor) for name, tensor in tensors.items()}


def _reason(error: Exception) -> str:
    """What the error reports, in one line, though names in a damaged file can contain any characters."""
    kind = "is damaged" if isinstance(error, zipfile.BadZipFile) else "cannot be read as a file of torch.save"
    return f"{kind}: {' '.join(str(error).split()) or 'it ends too early'}"


def _known(tensor: np.ndarray) -> np.ndarray:
    """The tensor in a type that NumPy has."""
    return tensor.astype(np.float32) if tensor.dtype == ml_dtypes.bfloat16 else tensor


def _zipped(path: Path) -> Any:
    """The object in an archive with ``NAME/data.pkl`` and the storages ``NAME/data/KEY``, without compression."""
    with zipfile.ZipFile(path) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if pickled is None:
            raise ValueError("the zip archive has no data.pkl")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and _stored(archive, f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are not little-endian")

        def storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
            name = f"{folder}data/{key}"
            if archive.getinfo(name).file_size != size * dtype.itemsize:
                raise ValueError(f"the storage {key} has not {size} numbers of type {dtype}")
            return np.frombuffer(_stored(archive, name), dtype)

        return _load(BytesIO(_stored(archive, pickled)), storage)


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """The content of an entry. Raises ValueError for a compressed one, which a small file can declare of any size."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} in the zip archive is compressed, which torch.save does not do")
    return archive.read(name)


def _plain(path: Path) -> Any:
    """The object in a file of the format before 2020: pickles in sequence, then the storages, each with its length."""
    storages: dict[str, np.ndarray] = {}

    def storage(dtype: np.dtype, key: str, size: int) -> np.ndarray:
        if size * dtype.itemsize > path.stat().st_size:
            raise ValueError(f"the storage {key} of {size} numbers is larger than the file")
        return storages.setdefault(key, np.empty(size, dtype))

    with path.open("rb") as file:
        if _load(file, storage) != MAGIC:
            raise ValueError("it does not begin as one")
        _load(file, storage)  # the version of the format
        if not _load(file, storage).get("little_endian"):
            raise ValueError("its numbers are not little-endian")
        content = _load(file, storage)
        keys = _load(file, storage)
        if set(keys) != storages.keys():
            raise ValueError("its list of storages is not that of its tensors")
        for key in keys:
            _fill(file, key, storages[key])
    return content


def _fill(file: BufferedReader, key: str, storage: np.ndarray) -> None:
    length, content = int.from_bytes(file.read(8), "little"), file.read(storage.nbytes)
    if length != storage.size or len(content) != storage.nbytes:
        raise ValueError(f"the storage {key} has not {storage.size} numbers of type {storage.dtype}")
    storage[:] = np.frombuffer(content, storage.dtype)


def _load(file: BytesIO | BufferedReader, storage: Callable[[np.dtype, str, int], np.ndarray]) -> Any:
    """The next object in the file. Raises ValueError for a pickle whose memo has gaps, as no writer leaves."""
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        # the unpickler allocates all indices up to the largest, 16 bytes each: four damaged bytes can ask for 64 GiB
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > position:  # type: ignore[arg-type]
            raise ValueError(f"its pickle has no {argument} objects before position {position}")
    file.seek(start)
    return _Tensors(file, storage).load()


class _Tensors(pickle.Unpickler):
    """An unpickler that makes arrays of PyTorch's tensors, and admits no other names than theirs."""

    def __init__(self, file: BytesIO | BufferedReader, storage: Callable[[np.dtype, str, int], np.ndarray]):
        """`storage` returns the storage of this dtype, key and size."""
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global name in the pickle. Raises ValueError for one that is not admitted."""
        # every result is immutable or made for this call: a pickle can also set attributes of what it names
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _view(*arguments[:4])
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise ValueError(f"its pickle names {module}.{name}, which could execute code: only tensors are read")

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage with this description."""
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in DTYPES.values() or type(size) is not int or size < 0 or any(view):
            raise ValueError(f"it has a storage of an unknown kind: {pid}")
        if key not in self._storages:
            self._storages[key] = self._storage(_dtype(dtype), key, size)
        if self._storages[key].dtype != _dtype(dtype):
            raise ValueError(f"the storage {key} has two types")
        return self._storages[key]


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _view(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The view of a storage that is a tensor; `offset` and `strides` count elements. Raises ValueError outside it."""
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"a tensor of shape {shape} has strides {strides} and offset {offset}")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if math.prod(shape) > storage.size:  # strides of 0 would admit any shape, and a copy of it any amount of memory
        raise ValueError(f"a tensor of shape {shape} has more numbers than its storage, {storage.size}")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= storage.size:
        raise ValueError(f"a tensor of shape {shape} reaches beyond the {storage.size} numbers of its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
