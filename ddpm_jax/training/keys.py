"""Random keys: one root key per seed and purpose, and one key per image."""

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Key

INIT, TRAIN, SAMPLE, EVALUATE = range(4)
"""The purposes of random keys: initialization, training, sampling, evaluation. Each has a root key of its own."""


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed outside 0 .. 2^32 - 1, whose upper bits JAX would ignore."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"a seed must be between 0 and 2^32 - 1, got {seed}")


def root_key(seed: int | Array, purpose: int) -> Key[Array, ""]:
    """The key from which all randomness for this purpose (INIT, TRAIN, SAMPLE or EVALUATE) is derived.

    Raises the ValueError of `check_seed`, unless the seed is traced.
    """
    if not isinstance(seed, Tracer):
        check_seed(int(seed))
    return jax.random.fold_in(jax.random.key(seed), purpose)


def keys(seed: int | Array, num: int, start: int | Array = 0, purpose: int = SAMPLE) -> Key[Array, " num"]:
    """The keys of images `start` .. `start + num - 1`, [num]. The key of image i depends on (seed, purpose, i) only.

    Image `start` is the first; seed and start are scalars, and may be traced. Raises ValueError for a seed outside
    0 .. 2^32 - 1.
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(root_key(seed, purpose), start + jnp.arange(num))
