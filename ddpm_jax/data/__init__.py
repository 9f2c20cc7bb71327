"""Data sets as random-access sources of uint8 images, and the order in which a run reads them."""

from ddpm_jax.data.augment import flip
from ddpm_jax.data.dataset import Data, Listing, indices, load, load_all, stream
from ddpm_jax.data.decode import Cut
from ddpm_jax.data.digits import digits, mnist_5000
from ddpm_jax.data.folder import folder
from ddpm_jax.data.photographs import photographs
from ddpm_jax.data.textures import textures
from ddpm_jax.data.tfds import tfds_images
from ddpm_jax.data.toys import dead_leaves, heartbeat, swiss_roll

__all__ = [
    "Cut",
    "Data",
    "Listing",
    "dead_leaves",
    "digits",
    "flip",
    "folder",
    "heartbeat",
    "indices",
    "load",
    "load_all",
    "mnist_5000",
    "photographs",
    "stream",
    "swiss_roll",
    "textures",
    "tfds_images",
]
