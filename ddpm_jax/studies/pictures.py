"""The images that `edit` is given: files, or test images of the run."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped, UInt8

from ddpm_jax.data import Data
from ddpm_jax.data.decode import decode
from ddpm_jax.studies.requests import EditRequest
from ddpm_jax.studies.sohl_dickstein_2015 import hole


def given(request: EditRequest, data: Data, shape: tuple[int, ...]) -> Shaped[np.ndarray, "images *shape"]:
    """The images of the request, as the data set stores them, each of this shape.

    Raises ValueError for the wrong number of images, a test image that does not exist, and files that are no image of
    this shape; FileNotFoundError where there is no file.
    """
    count = 2 if request.kind == "interpolate" else 1
    if (len(request.image), len(request.from_test)) not in ((count, 0), (0, count)):
        numbers = {1: "one image: --image FILE or --from-test N", 2: "two images: --image FILE FILE or --from-test N N"}
        raise ValueError(f"{request.kind} needs {numbers[count]}")
    if request.from_test:
        return np.stack([_test_image(data, number, shape) for number in request.from_test])
    levels = data.levels or 256
    return np.stack([np.rint(read(path, shape) * ((levels - 1) / 255)).astype(np.uint8) for path in request.image])


def name_of(request: EditRequest) -> str:
    """The images of the request in a file name. Raises FileNotFoundError for a file that does not exist."""
    for path in request.image:
        path.stat()
    return "_".join([f"test{number}" for number in request.from_test] or [path.stem for path in request.image])


def _test_image(data: Data, number: int, shape: tuple[int, ...]) -> np.ndarray:
    source = data.open("test")
    if not 0 <= number < len(source):
        raise ValueError(f"--from-test must be between 0 and {len(source) - 1}, got {number}")
    image = np.asarray(source[number]["image"])
    if image.shape != shape:
        raise ValueError(f"--measured: the measurement has shape {shape}, test images have {image.shape}: give --image")
    return image


def read(path: Path, shape: tuple[int, ...]) -> UInt8[np.ndarray, "height width channels"]:
    """The image in a picture file, or the one in a .npz or .npy; its levels are 0..255.

    Colours and grey are converted in picture files. Raises ValueError for another size or type, FileNotFoundError if
    there is no such file.
    """
    if path.suffix in (".npz", ".npy"):
        return _array(path, shape)
    try:
        return decode(path.read_bytes(), (shape[0], shape[1], shape[2]), fit=False)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def _array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        loaded = np.load(path)
        array = loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]]
    except FileNotFoundError:
        raise
    except Exception:  # damaged archives make NumPy raise almost anything
        raise ValueError(f"{path} cannot be read as an array") from None
    array = array[0] if array.ndim == len(shape) + 1 and len(array) == 1 else array
    if array.dtype != np.uint8 or array.shape != shape:
        raise ValueError(f"{path} has {array.dtype} {array.shape}, not one image, uint8 {shape}")
    return array


def missing(request: EditRequest, shape: tuple[int, ...]) -> Bool[np.ndarray, "height width channels"]:
    """Where the image is to be filled in. Raises ValueError for a mask or a box that leaves nothing to do, or all."""
    if request.mask is not None and request.box is not None:
        raise ValueError("give --mask or --box, not both")
    if request.mask is not None:
        empty = np.broadcast_to(read(request.mask, (*shape[:2], 1)) > 127, shape)
    elif request.box is not None:
        empty = _boxed(request.box, shape)
    else:
        empty = hole(shape, "centre")
    if empty.all() or not empty.any():
        raise ValueError("the mask must have white pixels, which are filled in, and black ones, which are known")
    return empty


def _boxed(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> Bool[np.ndarray, "height width channels"]:
    top, left, height, width = box
    if min(top, left) < 0 or min(height, width) < 1 or top + height > shape[0] or left + width > shape[1]:
        raise ValueError(
            f"--box {' '.join(map(str, box))} is not within the {shape[0]}x{shape[1]} pixels of the images"
        )
    empty = np.zeros(shape, bool)
    empty[top : top + height, left : left + width] = True
    return empty
