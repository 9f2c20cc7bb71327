"""`tfds_images`: images are read back to the bit; data sets that cannot be read are refused with a clear message."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from ddpm_jax.data import Cut, load, tfds_images
from ddpm_jax.data.tfds import images_of, is_prepared

SHAPES = [(5, 4, 1), (5, 4, 3)]


def random_images(shape, count=40):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def write(root, images, *, declared=None, dtype=np.uint8, classes=10, split="train", file_format="array_record"):
    """A data set "tiny" as TFDS lays it out, with labels 0, 1, 2 ..., written without TFDS's builders."""
    folder = root / "tiny" / "1.0.0"
    folder.mkdir(parents=True)
    image = tfds.features.Image(shape=declared or images[0].shape, dtype=dtype)
    label = tfds.features.ClassLabel(num_classes=classes)
    tfds.features.FeaturesDict({"image": image, "label": label}).save_config(folder)
    kept = {"name": split, "shardLengths": [str(len(images))], "numBytes": "1"}
    info = {"name": "tiny", "version": "1.0.0", "fileFormat": file_format, "splits": [kept]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    writer = ArrayRecordWriter(str(folder / f"tiny-{split}.array_record-00000-of-00001"), "group_size:1")
    for index, image in enumerate(images):
        writer.write(record(image, index % classes))
    writer.close()


def record(image, label):
    encoded = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())
    picture.save(encoded, "PNG")
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(encoded.getvalue())
    example.features.feature["label"].int64_list.value.append(label)
    return example.SerializeToString()


@pytest.mark.parametrize("shape", SHAPES)
def test_images_are_read_back_to_the_bit_and_in_order(tmp_path, shape):
    images = random_images(shape)
    write(tmp_path, images)
    found = load(tfds_images("tiny", shape, 10, data_dir=str(tmp_path)).open("train"))
    np.testing.assert_array_equal(found["image"], images)
    np.testing.assert_array_equal(found["label"], np.arange(40) % 10)
    assert found["image"].dtype == np.uint8
    assert found["label"].dtype == np.int32


def test_a_source_is_a_sequence(tmp_path):
    images = random_images((5, 4, 1))
    write(tmp_path, images)
    source = tfds_images("tiny", (5, 4, 1), 10, data_dir=str(tmp_path)).open("train")
    np.testing.assert_array_equal([example["image"] for example in source], images)
    np.testing.assert_array_equal(source[-1]["image"], images[-1])
    with pytest.raises(IndexError):
        source[40]
    many = source.__getitems__([9, 0, 9])
    np.testing.assert_array_equal([example["image"] for example in many], images[[9, 0, 9]])
    np.testing.assert_array_equal([example["label"] for example in many], [9, 0, 9])


def test_data_and_source_survive_pickling_before_and_after_use(tmp_path):
    images = random_images((5, 4, 3))
    write(tmp_path, images)
    data = pickle.loads(pickle.dumps(tfds_images("tiny", (5, 4, 3), 10, data_dir=str(tmp_path))))
    source = data.open("train")
    np.testing.assert_array_equal(source[7]["image"], images[7])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[8]["image"], images[8])


def test_splits_are_given_in_the_syntax_of_tfds(tmp_path):
    images = random_images((5, 4, 1))
    write(tmp_path, images)
    data = tfds_images("tiny", (5, 4, 1), 10, train="train[:75%]", test="train[75%:]", data_dir=str(tmp_path))
    np.testing.assert_array_equal([example["image"] for example in data.open("train")], images[:30])
    np.testing.assert_array_equal([example["image"] for example in data.open("test")], images[30:])


def test_a_listing_has_the_version_and_the_sizes_and_changes_with_the_splits(tmp_path):
    write(tmp_path, random_images((5, 4, 1)))
    data = tfds_images("tiny", (5, 4, 1), 10, data_dir=str(tmp_path))
    assert data.listing().report == "tiny/1.0.0: 40 images for train, 0 images for test"
    half = tfds_images("tiny", (5, 4, 1), 10, train="train[:50%]", test="train[50%:]", data_dir=str(tmp_path))
    assert half.listing().report == "tiny/1.0.0: 20 images for train, 20 images for test"
    assert data.listing() == tfds_images("tiny", (5, 4, 1), 10, data_dir=str(tmp_path)).listing()
    assert data.listing().digest != half.listing().digest


def test_without_classes_there_are_no_labels(tmp_path):
    write(tmp_path, random_images((5, 4, 1)))
    source = tfds_images("tiny", (5, 4, 1), data_dir=str(tmp_path)).open("train")
    assert set(source[0]) == {"image"}


def test_colours_of_a_palette_are_looked_up(tmp_path):
    # TFDS's own decoder without TensorFlow returns the indices
    image = np.zeros((5, 4, 3), np.uint8)
    image[:2] = (255, 0, 128)
    write(tmp_path, [Image.fromarray(image).quantize(4)], declared=(5, 4, 3))
    source = tfds_images("tiny", (5, 4, 3), 10, data_dir=str(tmp_path)).open("train")
    np.testing.assert_array_equal(source[0]["image"], image)


def test_another_shape_is_refused_when_the_split_is_opened(tmp_path):
    write(tmp_path, random_images((5, 4, 1)))
    with pytest.raises(ValueError, match=r"tiny.*\(5, 4, 1\).*\(5, 4, 3\)"):
        tfds_images("tiny", (5, 4, 3), 10, data_dir=str(tmp_path)).open("train")


def test_another_shape_is_refused_when_read_if_sizes_vary(tmp_path):
    small, large = random_images((5, 4, 3), count=1)[0], random_images((6, 4, 3), count=1)[0]
    write(tmp_path, [small, large], declared=(None, None, 3))
    source = tfds_images("tiny", (5, 4, 3), 10, data_dir=str(tmp_path)).open("train")
    np.testing.assert_array_equal(source[0]["image"], small)
    with pytest.raises(ValueError, match="an image of tiny has 6x4 pixels, not 5x4"):
        source[1]


def test_a_box_is_cut_out_of_each_image_and_changes_the_listing(tmp_path):
    images = random_images((6, 5, 3))
    write(tmp_path, images)
    data = tfds_images("tiny", (4, 2, 3), fit=True, box=(1, 2, 3, 6), data_dir=str(tmp_path))
    np.testing.assert_array_equal(load(data.open("train"))["image"], images[:, 2:6, 1:3])
    other = tfds_images("tiny", (4, 2, 3), fit=True, box=Cut((1, 2, 3, 6), of=(7, 5)), data_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"an image of tiny has 6x5 pixels, and the part .* of pictures of 7x5"):
        other.open("train")[0]
    assert data.listing() != tfds_images("tiny", (4, 2, 3), fit=True, data_dir=str(tmp_path)).listing()
    with pytest.raises(ValueError, match=r"box=\(1, 2, 3, 6\) requires fit=True"):
        tfds_images("tiny", (4, 2, 3), box=(1, 2, 3, 6), data_dir=str(tmp_path))


def test_another_number_of_classes_is_refused(tmp_path):
    write(tmp_path, random_images((5, 4, 1)), classes=10)
    with pytest.raises(ValueError, match="tiny has 10 classes in its label, not 7"):
        tfds_images("tiny", (5, 4, 1), 7, data_dir=str(tmp_path)).open("train")


def test_images_of_16_bits_are_refused(tmp_path):
    write(tmp_path, random_images((5, 4, 1)), dtype=np.uint16)
    with pytest.raises(ValueError, match="tiny has no feature `image` of type uint8"):
        tfds_images("tiny", (5, 4, 1), 10, data_dir=str(tmp_path)).open("train")


def test_opening_a_data_set_that_is_not_prepared_names_the_command_that_prepares_it(tmp_path):
    data = tfds_images("fashion_mnist", (28, 28, 1), 10, data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError) as raised:
        data.open("train")
    message = str(raised.value)
    assert f"`ddpm-jax prepare fashion_mnist --data-dir {tmp_path}`" in message
    assert 'pip install "ddpm_jax[prepare]"' in message
    assert "\n" not in message


def test_files_of_another_format_are_not_prepared(tmp_path):
    write(tmp_path, random_images((5, 4, 1)), file_format="tfrecord")
    with pytest.raises(FileNotFoundError, match="ddpm-jax prepare tiny"):
        tfds_images("tiny", (5, 4, 1), 10, data_dir=str(tmp_path)).open("train")


def test_a_builder_that_has_written_nothing_is_not_prepared(tmp_path):
    assert not is_prepared(tfds.builder("fashion_mnist", data_dir=tmp_path, file_format="array_record"))


def test_an_unknown_name_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"\ATFDS has no data set 'no_such_set'.*\Z"):
        tfds_images("no_such_set", (5, 4, 1), data_dir=str(tmp_path)).open("train")


def test_nothing_imports_tensorflow(tmp_path):
    write(tmp_path, random_images((5, 4, 1)))
    # an empty module comes first on the path, so that an import of TensorFlow succeeds, and is detected, everywhere
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text("")
    code = f"""
import sys
from ddpm_jax.data import load, tfds_images
rows = load(tfds_images("tiny", (5, 4, 1), 10, data_dir={str(tmp_path)!r}).open("train"))
assert len(rows["image"]) == 40
assert "tensorflow" not in sys.modules
import tensorflow
assert tensorflow.__path__ == [{str(tmp_path / "path" / "tensorflow")!r}]
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(root)])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_the_name_alone_gives_the_images_of_the_shape_that_is_stated(tmp_path):
    images = random_images((5, 4, 3))
    write(tmp_path / "a", images)
    data = images_of("tiny", str(tmp_path / "a"))
    np.testing.assert_array_equal(load(data.open("train"))["image"], images)
    write(tmp_path / "b", images[:7], split="validation")
    np.testing.assert_array_equal(load(images_of("tiny", str(tmp_path / "b")).open("test"))["image"], images[:7])
    write(tmp_path / "c", images, declared=(None, None, 3))
    with pytest.raises(ValueError, match="the data set tiny has no images of one size"):
        images_of("tiny", str(tmp_path / "c"))
