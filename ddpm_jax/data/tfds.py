"""Image data sets of TensorFlow Datasets (TFDS), read from array_record files at random, without TensorFlow."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.data.dataset import Data, Example, Listing
from ddpm_jax.data.decode import Box, Cut, decode

Builder = Any
"""A tfds.core.DatasetBuilder. TFDS is imported inside functions only, so its types cannot be named here."""


def tfds_images(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int | None = None,
    train: str = "train",
    test: str = "test",
    data_dir: str | None = None,
    fit: bool = False,
    cost: str | None = None,
    box: Box | Cut | None = None,
) -> Data:
    """The TFDS data set `name`, which must have been prepared with `ddpm-jax prepare NAME`.

    Nothing is read before a split is opened. Opening raises FileNotFoundError if the data set is not prepared in the
    array_record format, and ValueError if its images or classes differ from those given here. The result and its
    sources can be pickled, and read from several threads at once.

    Args:
        name: The name in TFDS, such as "fashion_mnist", "celeb_a_hq/256" or "cifar10:3.0.2".
        image_shape: (height, width, channels) of every image; one channel for grey images.
        num_classes: The number of values of the feature "label". Default: the examples have no label.
        train: The split that ``open("train")`` reads, in the syntax of TFDS, such as "train[:90%]".
        test: The split that ``open("test")`` reads.
        data_dir: The folder of data sets. Default: TFDS's own, ~/tensorflow_datasets.
        fit: Crop and resize images of other sizes (see `decode`), instead of refusing them.
        cost: What preparation requires, such as "170 MB to download", for the error message.
        box: With `fit`: the part (left, top, right, bottom) in pixels that is cut out of each image before; a `Cut`
            refuses images of another size than it states.
    """
    if box is not None and not fit:
        raise ValueError(f"box={box} requires fit=True")
    splits = {"train": train, "test": test}
    open_split = partial(_open, name, image_shape, num_classes, data_dir, splits, fit, box, cost)
    options = [image_shape, num_classes, fit, *([] if box is None else [box])]  # without a box, as earlier runs have it
    listing = partial(_listing, name, data_dir, splits, options, cost)
    return Data(name=name, image_shape=image_shape, open=open_split, num_classes=num_classes, listing=listing)


def images_of(name: str, data_dir: str | None = None) -> Data:
    """The TFDS data set `name` with images of the shape that it states, without labels.

    Its test split is "validation" where it has that and no "test". Raises ValueError if TFDS has no such data set, or
    if it states no shape because its images differ in size.
    """
    info = find(name, data_dir).info
    image = dict(info.features.items()).get("image")
    shape: Any = getattr(image, "shape", None)
    if shape is None or len(shape) != 3 or None in shape:
        raise ValueError(
            f"the data set {name} has no images of one size: give a run or an experiment that resizes them"
        )
    test = "validation" if "validation" in info.splits and "test" not in info.splits else "test"
    return tfds_images(name, shape, test=test, data_dir=data_dir)


def find(name: str, data_dir: str | Path | None) -> Builder:
    """The TFDS builder of the data set `name`, prepared or not. Raises ValueError if TFDS has no such data set."""
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        # TFDS's own message lists all of its data sets
        raise ValueError(
            f"TFDS has no data set {name!r}: choose one of https://www.tensorflow.org/datasets/catalog"
        ) from None


def is_prepared(builder: Builder) -> bool:
    """Whether the files of the data set exist, in the array_record format."""
    import tensorflow_datasets as tfds

    # an unprepared builder reports the format it would write, so the folder is checked too
    return builder.data_path.exists() and tfds.core.FileFormat.ARRAY_RECORD in builder.info.available_file_formats()


@dataclass(frozen=True)
class _Images(Sequence):
    """The rows of a TFDS data source as examples, each decoded when it is read."""

    # not Sequence[Example]: run-time type checkers would read an example of each source to check it

    name: str
    image_shape: tuple[int, int, int]
    labelled: bool
    fit: bool
    box: Box | Cut | None
    rows: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        # array_record has no negative indices and no IndexError; range has both
        return self._example(self.rows[range(len(self.rows))[index]])

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices`, read at once: ten times faster per row than one by one."""
        return [self._example(row) for row in self.rows.__getitems__(indices)]

    def _example(self, row: Mapping[str, Any]) -> Example:
        try:
            image = decode(row["image"], self.image_shape, self.fit, box=self.box)
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
    box: Box | Cut | None,
    cost: str | None,
    split: str,
) -> _Images:
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir, cost)
    _check_image(name, builder, image_shape, fit)
    _check_label(name, builder, num_classes)
    # _Images decodes: TFDS uses OpenCV or Pillow, whichever is installed, and with Pillow returns palette indices
    decoders = {"image": tfds.decode.SkipDecoding()}
    rows = builder.as_data_source(splits[split], decoders=decoders)
    return _Images(name, image_shape, num_classes is not None, fit, box, rows)


def _prepared(name: str, data_dir: str | None, cost: str | None) -> Builder:
    builder = find(name, data_dir)
    if not is_prepared(builder):
        raise FileNotFoundError(_how_to_prepare(name, data_dir, cost, builder.data_dir_root))
    return builder


def _listing(
    name: str, data_dir: str | None, splits: Mapping[str, str], options: list, cost: str | None, track: Any = None
) -> Listing:
    """The name with the version, and the number of examples of each split. Pictures are not read."""
    info = _prepared(name, data_dir, cost).info
    sizes = {split: _size(info, spec) for split, spec in splits.items()}
    content = json.dumps(["tfds", info.full_name, splits, sizes, options])
    counts = ", ".join(f"{size:,} images for {split}" for split, size in sizes.items())
    return Listing(f"{info.full_name}: {counts}", hashlib.sha256(content.encode()).hexdigest())


def _size(info: Any, spec: str) -> int:
    """The number of examples of a split such as "train[:90%]"; 0 if the data set has no such split."""
    try:
        return info.splits[spec].num_examples
    except (KeyError, ValueError):
        return 0


def _how_to_prepare(name: str, data_dir: str | None, cost: str | None, root: Any) -> str:
    """The error message for a data set that is not prepared."""
    command = f"ddpm-jax prepare {name}" + (f" --data-dir {data_dir}" if data_dir else "")
    requirements = ("" if cost is None else f"{cost}; ") + 'it needs `pip install "ddpm_jax[prepare]"`'
    return f"{name} is not prepared in {root}: run `{command}` ({requirements})"


def _check_image(name: str, builder: Builder, image_shape: tuple[int, int, int], fit: bool) -> None:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image = features.get("image")
    if image is None or not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise ValueError(f"{name} has no feature `image` of type uint8; its features are {', '.join(features)}")
    if fit:
        return
    # None is a size that varies between images: each is then checked as it is read
    shape: Any = image.shape
    if len(shape) != 3 or any(size not in (None, given) for size, given in zip(shape, image_shape, strict=True)):
        raise ValueError(f"the images of {name} have shape {shape}, not {image_shape}: match it, or set fit=True")


def _check_label(name: str, builder: Builder, num_classes: int | None) -> None:
    if num_classes is None:
        return
    label = dict(builder.info.features.items()).get("label")
    found = getattr(label, "num_classes", None)
    if found != num_classes:
        raise ValueError(f"{name} has {found or 'no'} classes in its label, not {num_classes}: set num_classes={found}")
