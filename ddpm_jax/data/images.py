"""Image data sets of TensorFlow Datasets, read from array_record files at any position and without TensorFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.data.dataset import Data, Example
from ddpm_jax.data.pixels import decode

Builder = Any
"""A tfds.core.DatasetBuilder. TFDS is imported only when files are looked for, so its types have no names here."""


def tfds_images(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    train: str = "train",
    test: str = "test",
    data_dir: str | None = None,
    fit: bool = False,
    cost: str | None = None,
) -> Data:
    """The TFDS data set `name`, prepared beforehand by `ddpm-jax prepare NAME`.

    Nothing is looked up before a split is opened. Opening raises FileNotFoundError if the data set is not prepared in
    the array_record format, ValueError if its images or classes are not those stated here. What it returns can be
    pickled, and read from many threads at once.

    Args:
        name: what TFDS calls it, such as "fashion_mnist", "celeb_a_hq/256" or "cifar10:3.0.2".
        image_shape: (height, width, channels) of every image, with one channel for greyscale.
        num_classes: the number of values of "label"; None leaves the label out of the examples, if there is one.
        train: what ``open("train")`` reads, in TFDS's language of splits, such as "train[:90%]".
        test: what ``open("test")`` reads.
        data_dir: where data sets are kept; TFDS's own default, ~/tensorflow_datasets, if not given.
        fit: crop images of other sizes in the middle and resize them, where they would be refused otherwise.
        cost: what it takes to prepare it, such as "170 MB to download", for the one who has not.
    """
    splits = {"train": train, "test": test}
    open_split = partial(_open, name, image_shape, num_classes, data_dir, splits, fit, cost)
    return Data(name=name, image_shape=image_shape, open=open_split, num_classes=num_classes)


def find(name: str, data_dir: str | Path | None) -> Builder:
    """TFDS's builder of the data set `name`, whether it is prepared or not; ValueError if TFDS has none."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        # TFDS's own message lists all of its data sets.
        raise ValueError(f"TFDS has no data set {name!r}; see https://www.tensorflow.org/datasets/catalog") from None


def is_prepared(builder: Builder) -> bool:
    """Whether the files are there in the format that can be read at any position."""
    import tensorflow_datasets as tfds

    # An unprepared builder states the format it would write, so the folder has to be asked for as well.
    return builder.data_path.exists() and tfds.core.FileFormat.ARRAY_RECORD in builder.info.available_file_formats()


@dataclass(frozen=True)
class _Images(Sequence):
    """The rows of a TFDS data source as examples, each decoded when it is asked for."""

    # Not Sequence[Example]: who checks types at run time would read an example of each source that passes by.

    name: str
    image_shape: tuple[int, int, int]
    labelled: bool
    fit: bool
    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        # range gives negative indices and IndexError their usual meaning, which array_record does not.
        return self._example(self.rows[range(len(self.rows))[index]])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices`, all at once: a row costs array_record a tenth then of what it costs alone."""
        return [self._example(row) for row in self.rows.__getitems__(indices)]

    def _example(self, row: Mapping[str, Any]) -> Example:
        try:
            image = decode(row["image"], self.image_shape, self.fit)
        except ValueError as error:
            raise ValueError(f"an image of {self.name} {error}") from None
        return {"image": image, "label": np.asarray(row["label"], np.int32)} if self.labelled else {"image": image}


def _open(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    data_dir: str | None,
    splits: Mapping[str, str],
    fit: bool,
    cost: str | None,
    split: str,
) -> _Images:
    import tensorflow_datasets as tfds

    builder = find(name, data_dir)
    if not is_prepared(builder):
        raise FileNotFoundError(_what_to_type(name, data_dir, cost, builder.data_dir_root))
    _check_image(name, builder, image_shape, fit)
    _check_label(name, builder, num_classes)
    # _Images decodes: TFDS takes OpenCV or Pillow, whichever is there, and with Pillow hands out a palette's indices.
    decoders = {"image": tfds.decode.SkipDecoding()}
    rows = builder.as_data_source(splits[split], decoders=decoders)
    return _Images(name, image_shape, num_classes is not None, fit, rows)


def _what_to_type(name: str, data_dir: str | None, cost: str | None, root: Any) -> str:
    command = f"ddpm-jax prepare {name}" + (f" --data-dir {data_dir}" if data_dir else "")
    told = "" if cost is None else f"{cost}; "
    return f'{name} is not prepared in {root}: type `{command}` ({told}it needs `pip install "ddpm_jax[prepare]"`)'


def _check_image(name: str, builder: Builder, image_shape: tuple[int, int, int], fit: bool) -> None:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image = features.get("image")
    if image is None or not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(f"{name} has no feature `image` of bytes; its features are {', '.join(features)}")
    if fit:
        return
    # None stands for a size that differs from image to image: then each is checked as it is read.
    shape: Any = image.shape
    if len(shape) != 3 or any(stored not in (None, wanted) for stored, wanted in zip(shape, image_shape, strict=True)):
        raise ValueError(f"the images of {name} have shape {shape}, not {image_shape}")


def _check_label(name: str, builder: Builder, num_classes: int | None) -> None:
    if num_classes is None:
        return
    label = dict(builder.info.features.items()).get("label")
    stored = getattr(label, "num_classes", None)
    if stored != num_classes:
        raise ValueError(f"{name} has {stored or 'no'} classes in its label, not {num_classes}")
