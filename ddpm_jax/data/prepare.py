"""Builds data sets in the form that `images` reads; of all the library, this alone needs TensorFlow."""

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from ddpm_jax.data.images import Builder, find, is_prepared

CONTENTS: Mapping[str, Mapping[str, str]] = {
    # Debian's package dataset-fashion-mnist packs the original files anew, with neither name nor date in gzip's header.
    # With both put back (mtime 1504176606 for train-*, 1504176627 for t10k-*) its four files have the very sha256 that
    # TFDS registers for the downloads: these are the contents that TFDS asks for, whoever compressed them.
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }
}
"""What can be prepared from a folder: for each data set its files, and the sha256 of what each holds *unpacked*."""


def prepare(name: str, source: Path | None = None, data_dir: Path | None = None) -> Path:
    """Builds the TFDS data set `name` as array_record files and returns the folder that holds them.

    What is already prepared stays as it is. A refused or interrupted build leaves no data set behind.

    Args:
        name: what TFDS calls it, such as "fashion_mnist" or "cifar10".
        source: a folder with the files that TFDS would download, to build without a network; only for the names in
            `CONTENTS`. For fashion_mnist: `apt-get install dataset-fashion-mnist`, /usr/share/datasets/fashion-mnist.
        data_dir: where data sets are kept; TFDS's own default, ~/tensorflow_datasets, if not given.

    Raises:
        ValueError: TFDS has no such data set, or `source` is not possible for it, or a file has another content.
        FileNotFoundError: `source` lacks a file.
        FileExistsError: the folder is taken by something else, such as the same data set in another format.
        ModuleNotFoundError: TensorFlow is not installed.
    """
    builder = find(name, data_dir)
    folder = Path(builder.data_dir)
    if is_prepared(builder):
        print(f"{name} is already prepared in {folder}: nothing to do")
        return folder
    if folder.exists():
        raise FileExistsError(f"{folder} is taken, but not by array_record files: move it away, or choose a data_dir")
    files = {} if source is None else _verified(builder.name, source.expanduser())
    _check_installed()
    with _download_dir(builder, files) as downloads:
        _build(builder, downloads)
    return folder


def _verified(name: str, source: Path) -> dict[str, bytes]:
    """The files of `name` in `source`, still packed; raises unless each of them unpacks to the content we know."""
    if name not in CONTENTS:
        raise ValueError(f"{name} cannot be prepared from a folder, only {', '.join(CONTENTS)}: leave the source out")
    if lacking := [filename for filename in CONTENTS[name] if not (source / filename).is_file()]:
        raise FileNotFoundError(f"{source} lacks {', '.join(lacking)}")
    # Read once: what is checked is what is used.
    files = {filename: (source / filename).read_bytes() for filename in CONTENTS[name]}
    for filename, expected in CONTENTS[name].items():
        _check_content(source / filename, files[filename], expected)
    return files


def _check_content(path: Path, packed: bytes, expected: str) -> None:
    try:
        found = hashlib.sha256(gzip.decompress(packed)).hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    if found != expected:
        raise ValueError(f"{path} is not the original: its content has sha256 {found}, not {expected}")


def _check_installed() -> None:
    # TFDS 4.9.10 imports importlib_resources to prepare, but asks for it under Python 3.8 only.
    if lacking := [module for module in ("tensorflow", "importlib_resources") if find_spec(module) is None]:
        raise ModuleNotFoundError(f'preparing needs {", ".join(lacking)}: pip install "ddpm_jax[prepare]"')


@contextlib.contextmanager
def _download_dir(builder: Builder, files: Mapping[str, bytes]) -> Iterator[str | None]:
    """None, TFDS's own download cache, if there are no files; else a cache of ours that holds them and goes afterwards.

    TFDS takes what it finds under a registered checksum for checked. So the files enter as that, after our own check,
    into a cache that only this build sees, and TFDS goes on checking all that it downloads, here and elsewhere.
    """
    if not files:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ddpm_jax-") as folder:
        _seed(builder, files, Path(folder))
        yield folder


def _seed(builder: Builder, files: Mapping[str, bytes], cache: Path) -> None:
    from tensorflow_datasets.core.download import resource

    (cache / builder.name).mkdir()
    for url, info in builder.url_infos.items():
        path = cache / builder.name / resource.get_dl_fname(url, info.checksum)
        path.write_bytes(files[info.filename])
        resource.write_info_file(url, path, builder.name, original_fname=info.filename, url_info=info)


def _build(builder: Builder, downloads: str | None) -> None:
    import tensorflow_datasets as tfds

    # Read when TensorFlow starts, which TFDS lets it do only now: 2 leaves errors; oneDNN announces itself regardless.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    builder.download_and_prepare(download_dir=downloads, download_config=config, file_format="array_record")
