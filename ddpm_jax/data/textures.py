"""Patches of the photographs of brick, grass and gravel in scikit-image's wheel, as textures."""

from functools import partial

from ddpm_jax.data.dataset import Data
from ddpm_jax.data.patches import Patches, check_size, cut

NAMES = ("brick", "grass", "gravel")
STRIDE = 4
"""Pixels between two training patches."""


def textures(size: int = 28) -> Data:
    """Patches, uint8 [size, size, 1], of three photographs of 512x512 pixels: brick, grass and gravel.

    Training patches are 4 pixels apart and overlap. Test patches do not overlap, and share no pixel with training
    patches. Opening a split raises FileNotFoundError if scikit-image, the extra [textures], is not installed. Raises
    ValueError unless `size` is 1 to 128.
    """
    check_size("textures", size)
    return Data(name="textures", image_shape=(size, size, 1), open=partial(_open, size))


def _open(size: int, split: str) -> Patches:
    try:
        from skimage import data  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise FileNotFoundError('the textures are part of scikit-image: pip install "ddpm_jax[textures]"') from None
    return cut([getattr(data, name)()[..., None] for name in NAMES], split, size, STRIDE)
