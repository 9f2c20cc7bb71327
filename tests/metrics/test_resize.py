"""The three resizings: against torch, Pillow and torch-fidelity, and the weights of files."""

import hashlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddpm_jax.metrics import inception
from ddpm_jax.metrics.resize import matrix, resize

SHAPES = [(32, 32), (28, 41), (299, 299), (512, 330), (1, 5)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_clean_is_pillow_on_floats(shape):
    images = noise(*shape)
    planes = [Image.fromarray(images[i, :, :, c].astype(np.float32)) for i in range(2) for c in range(3)]
    resized = [np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC)) for plane in planes]
    expected = np.clip(resized, 0, 255).reshape(2, 3, 299, 299).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(resize(jnp.asarray(images), 299, "clean"), expected, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_pytorch_and_tensorflow_are_those_of_the_published_programs(shape):
    torch = pytest.importorskip("torch")
    import published

    images = noise(*shape)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    half_pixel = torch.nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    none = published.extractors.interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    for resizing, expected in (("pytorch", half_pixel), ("tensorflow", none)):
        np.testing.assert_allclose(
            resize(jnp.asarray(images), 299, resizing),
            expected.numpy().transpose(0, 2, 3, 1),
            atol=2e-3,
            err_msg=resizing,
        )


@pytest.mark.parametrize("resizing", ["tensorflow", "pytorch", "clean"])
def test_weights_add_to_one_and_an_image_of_the_size_stays_as_it_is(resizing):
    for count in (1, 32, 300, 1024):
        np.testing.assert_allclose(matrix(count, 299, resizing).sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(matrix(299, 299, resizing), np.eye(299))


def test_half_a_pixel_lies_between_the_two_bilinear_resizings():
    """A ramp is moved by (1 - in / out) / 2 pixels."""
    ramp = jnp.asarray(np.broadcast_to(np.arange(64, dtype=np.float32)[None, :, None, None], (1, 64, 1, 1)))
    moved = np.asarray(resize(ramp, 256, "pytorch") - resize(ramp, 256, "tensorflow"))[0, :, 0, 0]
    np.testing.assert_allclose(moved[4:-4], 64 / 256 / 2 - 0.5, atol=1e-4)
    with pytest.raises(ValueError, match="'nearest'"):
        matrix(4, 8, "nearest")


def test_the_file_of_weights_is_found_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="download it"):
        inception.weights_file()
    file = tmp_path / "hub" / "checkpoints" / inception.FILES[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    with pytest.raises(ValueError, match=r"not 6726825d"):
        inception.weights_file()
    monkeypatch.setattr(inception, "SHA_256", hashlib.sha256(b"weights").hexdigest())
    assert inception.weights_file() == inception.weights_file(file) == file
