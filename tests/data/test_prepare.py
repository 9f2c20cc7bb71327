"""Laws of `prepare`: only the very content is taken, offline, and what is refused leaves nothing behind."""

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

room = import_module("ddpm_jax.data.prepare")

URLS = {f"http://tiny.invalid/{split}.gz": f"{split}.gz" for split in ("train", "test")}
REGISTERED = {url: checksums.UrlInfo(9, hashlib.sha256(b"").hexdigest(), file) for url, file in URLS.items()}
PIXELS = {"train": np.arange(60, dtype=np.uint8), "test": np.arange(60, 90, dtype=np.uint8)}


class TinyPixels(tfds.core.GeneratorBasedBuilder):
    """Images of 2 x 3 from two gzip files, whose registered checksums no file here has. Needs no TensorFlow."""

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
    """The same, unpacked and encoded by TensorFlow, as TFDS's own data sets are."""

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
    monkeypatch.setattr(room, "CONTENTS", {"tiny_pixels": known, "tiny_encoded": known})


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
    """TinyPixels does without TensorFlow; `prepare` cannot know."""
    monkeypatch.setattr(room, "_check_installed", lambda: None)


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def assert_holds_the_pixels(name, data_dir):
    data = tfds_images(name, (2, 3, 1), 256, data_dir=str(data_dir))
    for split, pixels in PIXELS.items():
        images = {int(example["label"]): example["image"] for example in data.open(split)}
        assert sorted(images) == list(pixels[::6])
        np.testing.assert_array_equal(np.stack([images[label] for label in sorted(images)]).ravel(), pixels)


def test_a_data_set_is_built_from_a_folder_and_read_back(source, tmp_path, temporary, installed):
    folder = room.prepare("tiny_pixels", source, tmp_path / "data")
    assert_holds_the_pixels("tiny_pixels", tmp_path / "data")
    assert folder == tmp_path / "data" / "tiny_pixels" / "1.0.0"
    assert files(temporary) == []
    assert {path.parent for path in files(tmp_path / "data")} == {folder}


def test_tensorflow_unpacks_and_encodes_the_same(source, tmp_path):
    pytest.importorskip("tensorflow")
    room.prepare("tiny_encoded", source, tmp_path / "data")
    assert_holds_the_pixels("tiny_encoded", tmp_path / "data")


def test_tfds_goes_on_refusing_the_same_file_from_anyone_else(source, tmp_path, temporary, installed):
    room.prepare("tiny_pixels", source, tmp_path / "data")
    manager = tfds.download.DownloadManager(
        download_dir=tmp_path / "cache", manual_dir=source, url_infos=REGISTERED, dataset_name="tiny_pixels"
    )
    with pytest.raises(NonMatchingChecksumError):
        manager.download(next(iter(URLS)))


def test_how_the_content_was_packed_does_not_matter(source):
    repacked = gzip.compress(PIXELS["test"].tobytes(), compresslevel=0, mtime=1)
    assert repacked != (source / "test.gz").read_bytes()
    (source / "test.gz").write_bytes(repacked)
    assert room._verified("tiny_pixels", source)["test.gz"] == repacked


def other_content(packed):
    return gzip.compress(gzip.decompress(packed) + b"\0")


def cut_short(packed):
    return packed[:-9]


def not_gzip(packed):
    return gzip.decompress(packed)


def garbled(packed):
    return packed[:10] + b"\x07" + packed[11:]  # opens with a block of a type that deflate does not have


@pytest.mark.parametrize("spoil", [other_content, cut_short, not_gzip, garbled])
def test_a_spoilt_file_is_named_and_nothing_is_left_behind(source, tmp_path, temporary, installed, spoil):
    path = source / "test.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"\A{path} is not .*\Z") as raised:
        room.prepare("tiny_pixels", source, tmp_path / "data")
    assert "train.gz" not in str(raised.value)
    assert files(temporary) == []
    assert not (tmp_path / "data").exists()


def test_a_missing_file_is_named_and_nothing_is_left_behind(source, tmp_path, temporary, installed):
    (source / "train.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"source lacks train\.gz\Z"):
        room.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(temporary) == []
    assert not (tmp_path / "data").exists()


def test_a_build_that_fails_leaves_no_files_behind(source, tmp_path, temporary, installed, monkeypatch):
    def fail(self, content):
        yield 0, {"image": io.BytesIO(b""), "label": 0}
        raise RuntimeError("power cut")

    monkeypatch.setattr(TinyPixels, "_generate_examples", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        room.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(temporary) == []
    assert files(tmp_path / "data") == []


def test_what_is_prepared_is_left_as_it_is(source, tmp_path, installed, capsys):
    folder = room.prepare("tiny_pixels", source, tmp_path / "data")
    before = {path: path.stat().st_mtime_ns for path in files(folder)}
    capsys.readouterr()
    assert room.prepare("tiny_pixels", tmp_path / "nowhere", tmp_path / "data") == folder
    assert "already prepared" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in files(folder)} == before


def test_a_folder_that_holds_something_else_is_not_taken_for_prepared(source, tmp_path, installed):
    folder = tmp_path / "data" / "tiny_pixels" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=str(folder)):
        room.prepare("tiny_pixels", source, tmp_path / "data")
    assert files(folder) == [folder / "notes.txt"]


def test_only_known_contents_are_built_from_a_folder(source, tmp_path):
    with pytest.raises(ValueError, match=r"cifar10 .*only tiny_pixels, tiny_encoded"):
        room.prepare("cifar10", source, tmp_path / "data")


def test_a_name_that_tfds_does_not_know_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"\ATFDS has no data set 'no_such_set'.*\Z"):
        room.prepare("no_such_set", None, tmp_path / "data")


def test_without_tensorflow_one_line_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "find_spec", lambda module: None if module == "tensorflow" else object())
    with pytest.raises(ModuleNotFoundError, match=r'\Apreparing needs tensorflow: pip install "ddpm_jax\[prepare\]"\Z'):
        room.prepare("tiny_pixels", source, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_known_files_of_fashion_mnist_are_those_that_tfds_asks_for():
    registered = checksums.load_url_infos(tfds.core.tfds_path() / "url_checksums" / "fashion_mnist.txt")
    assert set(room.CONTENTS["fashion_mnist"]) == {info.filename for info in registered.values()}
