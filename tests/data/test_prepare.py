"""`prepare`: builds from verified files without a network; a refused or failed build leaves no files behind."""

import gzip
import hashlib
import io
import tempfile
from importlib import import_module

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from ddpm_jax.data import tfds_images

module = import_module("ddpm_jax.data.prepare")

URLS = {f"http://tiny.invalid/{split}.gz": f"{split}.gz" for split in ("train", "test")}
REGISTERED = {url: checksums.UrlInfo(9, hashlib.sha256(b"").hexdigest(), file) for url, file in URLS.items()}
PIXELS = {"train": np.arange(60, dtype=np.uint8), "test": np.arange(60, 90, dtype=np.uint8)}


class TinyPixels(tfds.core.GeneratorBasedBuilder):
    """Images of 2 x 3 from two gzip files. Their registered checksums match no file here. Needs no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = REGISTERED

    def _info(self):
        features = {"image": tfds.features.Image(shape=(2, 3, 1)), "label": tfds.features.ClassLabel(num_classes=256)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        paths = dl_manager.download(list(URLS))
        contents = [gzip.decompress(path.read_bytes()) for path in paths]
        return {split: self._generate_examples(content) for split, content in zip(PIXELS, contents, strict=True)}

    def _generate_examples(self, content):
        for image in np.frombuffer(content, np.uint8).reshape(-1, 2, 3):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "PNG")
            encoded.seek(0)
            yield int(image[0, 0]), {"image": encoded, "label": image[0, 0]}


class TinyEncoded(TinyPixels):
    """The same, decompressed and encoded by TensorFlow, as TFDS's own data sets are."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager):
        paths = dl_manager.download_and_extract(list(URLS))
        return {split: self._generate_examples(path.read_bytes()) for split, path in zip(PIXELS, paths, strict=True)}

    def _generate_examples(self, content):
        for image in np.frombuffer(content, np.uint8).reshape(-1, 2, 3, 1):
            yield int(image[0, 0, 0]), {"image": image, "label": image[0, 0, 0]}


@pytest.fixture
def contents(monkeypatch):
    known = {f"{split}.gz": hashlib.sha256(pixels.tobytes()).hexdigest() for split, pixels in PIXELS.items()}
    monkeypatch.setattr(module, "CONTENTS", {"tiny_pixels": known, "tiny_encoded": known})


@pytest.fixture
def source(tmp_path, contents):
    folder = tmp_path / "source"
    folder.mkdir()
    for split, pixels in PIXELS.items():
        (folder / f"{split}.gz").write_bytes(gzip.compress(pixels.tobytes()))
    return folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def installed(monkeypatch):
    """Disables the check for TensorFlow, which TinyPixels does not need."""
    monkeypatch.setattr(module, "_check_installed", lambda: None)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_holds_the_pixels(name, data_dir):
    data = tfds_images(name, (2, 3, 1), 256, data_dir=str(data_dir))
    for split, pixels in PIXELS.items():
        images = {int(example["label"]): example["image"] for example in data.open(split)}
        assert sorted(images) == list(pixels[::6])
        np.testing.assert_array_equal(np.stack([images[label] for label in sorted(images)]).ravel(), pixels)


def test_a_data_set_is_built_from_a_folder_and_read_back(source, tmp_path, temporary, installed):
    folder, new = module.prepare("tiny_pixels", source, tmp_path / "data")
    assert_holds_the_pixels("tiny_pixels", tmp_path / "data")
    assert new and folder == tmp_path / "data" / "tiny_pixels" / "1.0.0"
    assert files(temporary) == []
    assert {path.parent for path in files(tmp_path / "data")} == {folder}


def test_tensorflow_unpacks_and_encodes_the_same(source, tmp_path):
    pytest.importorskip("tensorflow")
    module.prepare("tiny_encoded", source, tmp_path / "data")
    assert_holds_the_pixels("tiny_encoded", tmp_path / "data")


def test_tfds_continues_to_refuse_the_same_file_elsewhere(source, tmp_path, temporary, installed):
    module.prepare("tiny_pixels", source, tmp_path / "data")
    manager = tfds.download.DownloadManager(
        download_dir=tmp_path / "cache", manual_dir=source, url_infos=REGISTERED, dataset_name="tiny_pixels"
    )
    with pytest.raises(NonMatchingChecksumError):
        manager.download(next(iter(URLS)))


def test_the_compression_of_the_files_does_not_matter(source):
    recompressed = gzip.compress(PIXELS["test"].tobytes(), compresslevel=0, mtime=1)
    assert recompressed != (source / "test.gz").read_bytes()
    (source / "test.gz").write_bytes(recompressed)
    assert module._verified("tiny_pixels", source)["test.gz"] == recompressed


def other_content(compressed):
    return gzip.compress(gzip.decompress(compressed) + b"\0")


def cut_short(compressed):
    return compressed[:-9]


def not_gzip(compressed):
    return gzip.decompress(compressed)


def corrupt(compressed):
    return compressed[:10] + b"\x07" + compressed[11:]  # the first block has a type that deflate does not define


@pytest.mark.parametrize("spoil", [other_content, cut_short, not_gzip, corrupt])
def test_a_damaged_file_is_named_and_nothing_is_left_behind(source, tmp_path, temporary, installed, spoil):
    path = source / "test.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"\A{path} is not .*\Z") as raised:
        module.prepare("tiny_pixels", source, tmp_path / "data")
    assert "train.gz" not in str(raised.value)
    assert files(temporary) == []
    assert not (tmp_path / "data").exists()


def test_a_missing_file_is_named_and_nothing_is_left_behind(source, tmp_path, temporary, installed):
    (source / "train.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"\Atrain\.gz not found in .*source\Z"):
        module.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(temporary) == []
    assert not (tmp_path / "data").exists()


def test_a_build_that_fails_leaves_no_files_behind(source, tmp_path, temporary, installed, monkeypatch):
    def fail(self, content):
        yield 0, {"image": io.BytesIO(b""), "label": 0}
        raise RuntimeError("power cut")

    monkeypatch.setattr(TinyPixels, "_generate_examples", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        module.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(temporary) == []
    assert files(tmp_path / "data") == []


def test_a_prepared_data_set_is_left_unchanged(source, tmp_path, installed):
    folder, _ = module.prepare("tiny_pixels", source, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    assert module.prepare("tiny_pixels", tmp_path / "nowhere", tmp_path / "data") == (folder, False)
    assert {path: path.stat().st_mtime_ns for path in files(folder)} == before


def test_a_folder_with_other_files_is_not_overwritten(source, tmp_path, installed):
    folder = tmp_path / "data" / "tiny_pixels" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(folder)):
        module.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(folder) == [folder / "notes.txt"]


def test_only_known_data_sets_are_built_from_a_folder(source, tmp_path):
    with pytest.raises(ValueError, match=r"cifar10 .*only tiny_pixels, tiny_encoded"):
        module.prepare("cifar10", source, tmp_path / "data")


def test_an_unknown_name_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"\ATFDS has no data set 'no_such_set'.*\Z"):
        module.prepare("no_such_set", None, tmp_path / "data")


def test_without_tensorflow_the_message_names_the_extra_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "tensorflow" else object())
    with pytest.raises(ModuleNotFoundError, match=r'\Aprepare needs tensorflow: pip install "ddpm_jax\[prepare\]"\Z'):
        module.prepare("tiny_pixels", source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_known_files_of_fashion_mnist_are_those_that_tfds_downloads():
    registered = checksums.load_url_infos(tfds.core.tfds_path() / "url_checksums" / "fashion_mnist.txt")
    assert set(module.CONTENTS["fashion_mnist"]) == {info.filename for info in registered.values()}
