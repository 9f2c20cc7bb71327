"""The examples made from picture files: decoded one by one when they are read, or all at once and then kept."""

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from ddpm_jax.data import cache, colours, decode
from ddpm_jax.data.dataset import WORKERS, Example, Track, in_blocks, load_by_threads
from ddpm_jax.data.files import File, read

Crop = Literal["centre", "random"] | decode.Box | decode.Cut
"""The part of a picture that is kept: as large a part as fits, or that in a box."""


@dataclass(frozen=True)
class Rules:
    """How the content of a file becomes an image."""

    image_shape: tuple[int, int, int]
    crop: Crop
    background: colours.Colour

    def image(self, encoded: bytes, name: str) -> np.ndarray:
        """The image in the bytes of a file of this name. Raises what `decode` raises."""
        centring = _random_position(name) if self.crop == "random" else (0.5, 0.5)
        box = None if isinstance(self.crop, str) else self.crop
        return decode.decode(encoded, self.image_shape, True, centring, self.background, box)


def _random_position(name: str) -> tuple[float, float]:
    """Two numbers in [0, 1) that are drawn from the name."""
    drawn = np.frombuffer(hashlib.sha256(as_bytes(name)).digest(), "<u4")
    return float(drawn[0]) / 2**32, float(drawn[1]) / 2**32


def as_bytes(name: str) -> bytes:
    """The bytes of a file's name, which need not be valid UTF-8."""
    return name.encode(errors="surrogateescape")


@dataclass(frozen=True, eq=False)
class Images(Sequence):
    """A random-access source that decodes each picture when it is read."""

    root: Path
    """The folder or zip."""
    files: tuple[File, ...]
    rules: Rules
    labels: Mapping[str, int] | None
    """The label of each file by its name; None for examples without labels."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, in the order of the examples."""
        return tuple(file.name for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        image = {"image": self._image(self.files[index])}
        return (
            image
            if self.labels is None
            else image | {"label": np.asarray(self.labels[self.files[index].name], np.int32)}
        )

    def load_all(self, workers: int, track: Track) -> dict[str, np.ndarray]:
        """All examples, from the cache of decoded pixels if they are there: see `dataset.load_all`."""
        key, shape = self._key("pixels"), (len(self), *self.rules.image_shape)
        pixels = cache.find(key, shape)
        if pixels is None:
            pixels = load_by_threads(self, workers, track)["image"]
            if cache.fits(shape):
                cache.keep(key, pixels)
        if self.labels is None:
            return {"image": pixels}
        return {"image": pixels, "label": np.array([self.labels[name] for name in self.names], np.int32)}

    def without_broken(self, track: Track) -> "Images":
        """The examples whose pictures can be decoded. All are decoded once for that, and the result is kept."""
        key = self._key("good")
        known = cache.find(key, (len(self),))
        if known is not None:
            return self._where(known)
        good, pixels, keeps_pixels = [], [], cache.fits((len(self), *self.rules.image_shape))
        for block in in_blocks(lambda rows: [self._image_if_good(row) for row in rows], len(self), WORKERS, track):
            good += [image is not None for image in block]
            pixels += [image for image in block if keeps_pixels and image is not None]
        kept = self._where(good)
        cache.keep(key, np.array(good, np.uint8))
        if pixels:
            cache.keep(kept._key("pixels"), np.stack(pixels))
        return kept

    def _where(self, good: Iterable) -> "Images":
        chosen = tuple(file for file, is_good in zip(self.files, good, strict=True) if is_good)
        return dataclasses.replace(self, files=chosen)

    def _image_if_good(self, index: int) -> np.ndarray | None:
        try:
            return self._image(self.files[index])
        except ValueError:
            return None

    def _image(self, file: File) -> np.ndarray:
        """Raises ValueError for a broken picture and OSError for a failing disk, which is no reason to skip it."""
        try:
            return self.rules.image(read(self.root, file), file.name)
        except ValueError as error:
            raise ValueError(f"{self.root / file.name} {error}") from None
        except OSError as error:
            raise OSError(f"{self.root / file.name} cannot be read from the disk: {error.strerror}") from None

    def _key(self, what: str) -> str:
        """Identifies the pixels: it changes with each file, the rules, and the code that decodes."""
        content = [what, str(self.root.resolve()), dataclasses.astuple(self.rules), self.files, _decoder()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@lru_cache(1)
def _decoder() -> str:
    """The version of Pillow and the source of the modules that decode."""
    import PIL

    return PIL.__version__ + inspect.getsource(colours) + inspect.getsource(decode)
