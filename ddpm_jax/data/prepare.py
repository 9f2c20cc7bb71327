"""Preparation of TFDS data sets as array_record files. The only module that needs TensorFlow."""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ddpm_jax.data.tfds import Builder, find, is_prepared

CONTENTS: Mapping[str, Mapping[str, str]] = {
    # Debian's package dataset-fashion-mnist recompresses the original files, without name and date in the gzip header.
    # With both restored (mtime 1504176606 for train-*, 1504176627 for t10k-*) its four files have the sha256 that TFDS
    # registers for the downloads. So these are the contents that TFDS expects, whoever compressed them.
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }
}
"""The data sets that can be prepared from a folder: for each file, the sha256 of its *uncompressed* content."""


class Prepared(NamedTuple):
    """A data set that is ready for training."""

    folder: Path
    new: bool
    """Whether this call built it; False if it was prepared before."""


def prepare(name: str, source: Path | None = None, data_dir: Path | None = None) -> Prepared:
    """Builds the TFDS data set `name` as array_record files.

    A data set that is already prepared is left unchanged. A build that is refused or interrupted leaves no data set.

    Args:
        name: The name in TFDS, such as "fashion_mnist" or "cifar10".
        source: A folder with the files that TFDS would download, to build without a network. Only for the names in
            `CONTENTS`. For fashion_mnist: `apt-get install dataset-fashion-mnist`, /usr/share/datasets/fashion-mnist.
        data_dir: The folder of data sets. Default: TFDS's own, ~/tensorflow_datasets.

    Raises:
        ValueError: TFDS has no such data set, `source` is not supported for it, or a file has another content.
        FileNotFoundError: A file is missing in `source`.
        FileExistsError: The data set's folder holds something else, such as the same data set in another format.
        ModuleNotFoundError: TensorFlow is not installed.
    """
    builder = find(name, data_dir)
    folder = Path(builder.data_dir)
    if is_prepared(builder):
        return Prepared(folder, new=False)
    if folder.exists():
        raise FileExistsError(f"{folder} exists but holds no array_record files: move it, or choose another --data-dir")
    files = {} if source is None else _verified(builder.name, source.expanduser())
    _check_installed()
    with _download_dir(builder, files) as downloads:
        _build(builder, downloads)
    return Prepared(folder, new=True)


def _verified(name: str, source: Path) -> dict[str, bytes]:
    """The compressed files of `name` in `source`, by name. Raises unless each has the expected content."""
    if name not in CONTENTS:
        raise ValueError(f"{name} cannot be prepared from a folder, only {', '.join(CONTENTS)}: leave out --source")
    if missing := [filename for filename in CONTENTS[name] if not (source / filename).is_file()]:
        raise FileNotFoundError(f"{', '.join(missing)} not found in {source}")
    # read once, so that the bytes that are checked are the bytes that are used
    files = {filename: (source / filename).read_bytes() for filename in CONTENTS[name]}
    for filename, expected in CONTENTS[name].items():
        _check_content(source / filename, files[filename], expected)
    return files


def _check_content(path: Path, compressed: bytes, expected: str) -> None:
    """Raises ValueError unless the uncompressed content has the sha256 `expected`."""
    try:
        found = hashlib.sha256(gzip.decompress(compressed)).hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file: {error}") from None
    if found != expected:
        raise ValueError(f"{path} is not the original file: its content has sha256 {found}, not {expected}")


def _check_installed() -> None:
    # TFDS 4.9.10 needs importlib_resources to prepare a data set, but declares it for Python 3.8 only
    if missing := [module for module in ("tensorflow", "importlib_resources") if find_spec(module) is None]:
        raise ModuleNotFoundError(f'prepare needs {", ".join(missing)}: pip install "ddpm_jax[prepare]"')


@contextlib.contextmanager
def _download_dir(builder: Builder, files: Mapping[str, bytes]) -> Iterator[str | None]:
    """The download cache for TFDS to use: a temporary one that holds `files`, or None (TFDS's own) without files.

    TFDS takes a file that is cached under a registered checksum as verified. So the files, verified by us, enter a
    cache that only this build uses, and TFDS continues to verify all its downloads, in this build and elsewhere.
    """
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ddpm_jax-") as folder:
        _fill(builder, files, Path(folder))
        yield folder


def _fill(builder: Builder, files: Mapping[str, bytes], cache: Path) -> None:
    """Writes the files into the cache, under the names that TFDS gives to its downloads."""
    from tensorflow_datasets.core.download import resource

    (cache / builder.name).mkdir()
    for url, info in builder.url_infos.items():
        path = cache / builder.name / resource.get_dl_fname(url, info.checksum)
        path.write_bytes(files[info.filename])
        resource.write_info_file(url, path, builder.name, original_fname=info.filename, url_info=info)


def _build(builder: Builder, downloads: str | None) -> None:
    import tensorflow_datasets as tfds

    # read when TensorFlow is imported, which is now: level 2 keeps errors; oneDNN prints a notice at any level
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_dir=downloads, download_config=config, file_format="array_record")
