"""Digests of arrays, computed where the arrays are: the same on any mesh, and different after any damage."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALL = 2**14
"""Arrays with fewer elements are hashed on the host: a program for each of their shapes would take long to compile."""


def digest(tree: Any) -> str:
    """The digest of all arrays of the tree with their names, types and shapes: 64 hexadecimal digits.

    It does not depend on how the arrays are sharded, nor on the number of devices and processes. With several
    processes, each of them must call this function.
    """
    kinds = {name: f"{jnp.dtype(x.dtype).name}{x.shape}" for name, x in _named(tree).items()}
    lines = (f"{name} {kinds[name]} {value}\n" for name, value in sorted(digests(tree).items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digests(tree: Any) -> dict[str, str]:
    """The digest of each array, 16 hexadecimal digits, by the name of the array in the tree, such as "conv/bias".

    A change of one element always changes the digest. Any other change, such as swapped elements, keeps it with a
    probability of about 2^-64. With several processes, each of them must call this function.
    """
    small = {name: _is_small(x) for name, x in _named(tree).items()}
    fetched = jax.device_get({name: x if small[name] else _device_sums(x) for name, x in _named(tree).items()})
    sums = {name: _host_sums(x) if small[name] else x for name, x in fetched.items()}
    return {name: "{:08x}{:08x}".format(*map(int, pair)) for name, pair in sums.items()}


def _named(tree: Any) -> dict[str, Any]:
    """The arrays of the tree by the names of their paths."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(tree)}


def _is_small(x: Any) -> bool:
    """Whether the array is hashed on the host. All processes decide alike."""
    return not isinstance(x, jax.Array) or (x.size < SMALL and (x.is_fully_addressable or x.is_fully_replicated))


def _sums(bits: Any, index: Any) -> tuple[Any, Any]:
    """Two sums modulo 2^32, in any order, over the bits of the elements hashed with their positions.

        z_i = hash(bits_i ^ hash(i)),    sums = (sum_i z_i, sum_i (hash(i) | 1) z_i)

    The hash and the multiplication by an odd number are bijections of 32 bits, so both sums change with any one
    element. Sums that are linear in the bits would not notice that x and -x were swapped.
    """
    position = _hash(index)
    hashed = _hash(bits ^ position)
    return hashed.sum(dtype=np.uint32), ((position | np.uint32(1)) * hashed).sum(dtype=np.uint32)


def _hash(x: Any) -> Any:
    """A bijection of 32 bits in which each bit of x changes each bit of the result about half of the time.

    Chris Wellons' lowbias32, https://nullprogram.com/blog/2018/07/31/.
    """
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _host_sums(x: Any) -> tuple[Any, Any]:
    flat = np.ascontiguousarray(x).ravel()
    bits = flat.view(f"uint{8 * min(4, flat.dtype.itemsize)}").astype(np.uint32)
    return _sums(bits, np.arange(bits.size, dtype=np.uint32))


@jax.jit
def _device_sums(x: jax.Array) -> tuple[Any, Any]:
    """The sums of an array on devices. It is never reshaped, so that only the sums travel between devices."""
    kind = jnp.dtype(f"uint{8 * min(4, x.dtype.itemsize)}")
    bits = (x if x.dtype == jnp.bool_ else jax.lax.bitcast_convert_type(x, kind)).astype(jnp.uint32)
    index = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        index = index * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return _sums(bits, index)
