"""A folder or zip of pictures, of any size and format, as a data set."""

import dataclasses
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from ddpm_jax.data import colours, files
from ddpm_jax.data.dataset import Data, Listing, Track, untracked
from ddpm_jax.data.files import File
from ddpm_jax.data.images import Crop, Images, Rules, as_bytes

OnBadPicture = Literal["stop", "skip"]
MOST_KINDS = 8
"""The number of kinds of files that the report of a listing names."""


def folder(
    path: str,
    image_shape: tuple[int, int, int],
    test_percent: int = 0,
    labels: bool = False,
    num_classes: int | None = None,
    crop: Crop = "centre",
    background: str = "white",
    on_bad_picture: OnBadPicture = "stop",
) -> Data:
    """The pictures in a folder with its subfolders, or in a zip, cropped and resized to `image_shape`.

    No picture is read before a split is opened, and nothing at all unless `labels` requires the number of classes. The
    colours follow the rules of `data.colours`, the files that are found those of `data.files.find`.

    Opening raises FileNotFoundError if the path is neither a folder nor a zip, and ValueError if it has no picture for
    the split, a file that cannot be read (encrypted in a zip, say), or other classes than `labels` requires.

    Args:
        path: The folder or zip.
        image_shape: (height, width, channels) of the examples.
        test_percent: About this percentage of the pictures, chosen by a hash of their names, is the test split.
        labels: Whether examples have a label: the first-level subfolder of the picture, by its place in the sorted
            names. In a zip, a folder that contains everything else is passed over.
        num_classes: The number of classes for `labels`. Default: that of the folder now, which is listed for it.
        crop: The part of a picture that is kept: the centre, or, drawn from the picture's name, a random part. It is as
            large as the proportions of `image_shape` allow, and the same in each epoch. Or a box (left, top, right,
            bottom) in pixels, the part that is cut out of each picture before; a `Cut` refuses pictures of another size
            than it states.
        background: The colour behind transparent parts, a name or a code such as "#ff8800".
        on_bad_picture: At a picture that cannot be decoded: "stop" with an error when it is read, or "skip" it. To skip
            means that all pictures are decoded once before a split is opened, the result of which is kept.
    """
    if not 0 <= test_percent <= 100:
        raise ValueError(f"test_percent must be 0 to 100, got {test_percent}")
    rules = Rules(image_shape, crop, colours.colour(background))
    pictures = _Pictures(path, rules, test_percent, labels, num_classes, skip=on_bad_picture == "skip")
    classes = (num_classes or _number_of_classes(pictures)) if labels else None
    return Data(path, image_shape, open=pictures.open, num_classes=classes, listing=pictures.listing)


def _number_of_classes(pictures: "_Pictures") -> int:
    try:
        return len(pictures.classes)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or set num_classes: without it, its subfolders are counted") from None


@dataclass(eq=False)
class _Pictures:
    """The pictures of a folder or zip. They are listed once, so that all splits and the listing agree."""

    path: str
    rules: Rules
    test_percent: int
    labels: bool
    num_classes: int | None
    skip: bool
    sources: dict[str, Images] = field(default_factory=dict)
    """The sources of the splits that were opened."""

    @cached_property
    def root(self) -> Path:
        return Path(self.path).expanduser()

    @cached_property
    def found(self) -> files.Found:
        found = files.find(self.root)
        if not self.skip:
            for file in found.files:
                if file.problem:
                    raise ValueError(f"{self.root / file.name} {file.problem}")
        return found

    @cached_property
    def classes(self) -> Mapping[str, int]:
        """The label of each subfolder. Raises ValueError for pictures outside one, or too few classes."""
        names = [file.name for file in self.found.files]
        if outside := [name for name in names if self._subfolder(name) is None]:
            raise ValueError(
                f"{self.path} has {_count(len(outside), 'picture')} outside of subfolders, such as {outside[0]}: with "
                "labels, each picture must be in the subfolder of its class"
            )
        subfolders = sorted({self._subfolder(name) or "" for name in names})
        found = f"{self.path} has {_count(len(subfolders), 'subfolder')} with pictures"
        if len(subfolders) < 2:
            raise ValueError(f"{found}: labels need at least two, one for each class")
        if self.num_classes not in (None, len(subfolders)):
            raise ValueError(f"{found}, not {self.num_classes}: set num_classes={len(subfolders)}")
        return {name: label for label, name in enumerate(subfolders)}

    @cached_property
    def _wrapper(self) -> str:
        """The folder that contains everything in a zip, with a slash; empty if there is none."""
        first = {PurePosixPath(file.name).parts[0] for file in self.found.files}
        return f"{first.pop()}/" if self.root.is_file() and len(first) == 1 else ""

    def _subfolder(self, name: str) -> str | None:
        first, slash, _ = name.removeprefix(self._wrapper).partition("/")
        return first if slash else None

    def open(self, split: str) -> Images:
        """The source of a split."""
        images = self._good(split, untracked)
        if not images.files:
            raise ValueError(
                f"{self.path} has no image for the {split} split ({self.test_percent} % are for test): "
                f"{self.listing().report}"
            )
        return images

    def listing(self, track: Track = untracked) -> Listing:
        """The pictures of both splits and their order. Decodes all pictures if those that are broken are skipped."""
        kept = {split: self._good(split, track).files for split in ("train", "test")}
        classes = list(self.classes) if self.labels else None
        examples = {split: [(each.name, each.size) for each in of_split] for split, of_split in kept.items()}
        content = json.dumps(["pictures", dataclasses.astuple(self.rules), classes, examples])
        return Listing(self._report(kept), hashlib.sha256(content.encode()).hexdigest())

    def _report(self, kept: Mapping[str, Sequence[File]]) -> str:
        good = {file.name for of_split in kept.values() for file in of_split}
        broken = (PurePosixPath(file.name).suffix.lower() for file in self.found.files if file.name not in good)
        left_out = self.found.left_out + Counter(f"{ending} broken" for ending in broken)
        parts = [_count(len(good), "picture")]
        if self.test_percent:
            parts.append(f"{len(kept['test']):,} of them for test")
        if left_out:
            parts.append(f"{_count(left_out.total(), 'file')} left out ({_kinds(left_out)})")
        if self.labels:
            parts.append(f"{len(self.classes)} classes from subfolders")
        return ", ".join(parts)

    def _good(self, split: str, track: Track) -> Images:
        """The source of a split, perhaps empty, without broken pictures if those are skipped."""
        if split not in self.sources:
            chosen = [file for file in self.found.files if self._is_test(file.name) == (split == "test")]
            images = Images(self.root, tuple(chosen), self.rules, self._label_of(chosen) if self.labels else None)
            self.sources[split] = images.without_broken(track) if self.skip else images
        return self.sources[split]

    def _label_of(self, chosen: Sequence[File]) -> dict[str, int]:
        return {file.name: self.classes[self._subfolder(file.name) or ""] for file in chosen}

    def _is_test(self, name: str) -> bool:
        return zlib.crc32(as_bytes(name)) % 100 < self.test_percent


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _kinds(left_out: Counter[str]) -> str:
    """Such as ".txt 12, .gif broken 2": the most frequent kinds first."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    named, others = kinds[:MOST_KINDS], sum(count for _, count in kinds[MOST_KINDS:])
    return ", ".join(f"{kind} {count:,}" for kind, count in [*named, *([("others", others)] if others else [])])
