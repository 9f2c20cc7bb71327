"""Digests: the same wherever an array is, and another one after any change."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ddpm_jax.training import checkpoints, sharding
from ddpm_jax.training.digests import SMALL, digests

SHAPES = [(8, 16), (32, SMALL // 32)]
"""Of an array that is hashed on the host, and of one that is hashed on its devices."""


def array(shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def hashed(x):
    """The digest of a numpy array, computed where training would compute it."""
    (value,) = digests({"x": jnp.asarray(x)}).values()
    return value


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.int8, np.bool_, np.uint32])
def test_a_digest_is_the_same_on_any_mesh_and_on_the_host(shape, dtype):
    x = array(shape, dtype)
    shardings = [
        NamedSharding(sharding.make_mesh({"fsdp": fsdp}), PartitionSpec(*axes))
        for fsdp, axes in ((1, ()), (2, (None, "fsdp")), (4, ("fsdp",)), (2, ("data", "fsdp")), (8, (None, "fsdp")))
    ]
    everywhere = [{"x": x}, {"x": jnp.asarray(x)}, *({"x": jax.device_put(x, each)} for each in shardings)]
    assert len({checkpoints.digest(tree) for tree in everywhere}) == 1
    assert len({str(digests(tree)) for tree in everywhere}) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_elements_of_64_bits_too(x64, shape):
    x = array(shape, np.float64)
    assert digests({"x": x}) == digests({"x": jnp.asarray(x)})
    other = x.copy()
    other.view(np.uint64)[3, 5] ^= np.uint64(1 << 40)
    assert hashed(other) != hashed(x)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_bit_of_an_element_counts(shape):
    x = array(shape)
    found = {hashed(x)}
    for bit in range(32):
        changed = x.copy()
        changed.view(np.uint32)[2, 7] ^= np.uint32(1 << bit)
        found.add(hashed(changed))
    assert len(found) == 33


def swapped(x, one, other):
    x[one], x[other] = x[other].copy(), x[one].copy()


def swapped_bytes(x):
    content = x.reshape(-1).view(np.uint8)
    content[[40, 41]] = content[[41, 40]]


CHANGES = {
    "two elements": lambda x: swapped(x, (0, 0), (3, 5)),
    "neighbours": lambda x: swapped(x, (0, 0), (0, 1)),
    "rows": lambda x: swapped(x, 0, 4),
    "bytes": swapped_bytes,
    "zeroed": lambda x: x[3].fill(0),
    "sign of zero": lambda x: x[3].fill(-0.0),
    "moved": lambda x: x[...].put(range(x.size), np.roll(x, 1)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_changed_and_swapped_parts_change_the_digest(shape):
    found = {hashed(array(shape))}
    for change in CHANGES.values():
        x = array(shape)
        change(x)
        found.add(hashed(x))
    assert len(found) == 1 + len(CHANGES)


@pytest.mark.parametrize("shape", SHAPES)
def test_swapped_opposites_change_the_digest(shape):
    x = array(shape)
    x[1, 1] = -x[0, 0]
    before = hashed(x)
    swapped(x, (0, 0), (1, 1))
    assert hashed(x) != before


def test_the_digest_of_a_tree_counts_names_types_and_shapes():
    x = np.zeros(12, np.float32)
    trees = [
        {"a": x},
        {"b": x},
        {"a": {"b": x}},
        {"a": x, "b": x},
        {"a": x.reshape(3, 4)},
        {"a": x.astype(np.int32)},
        {"a": x.astype(np.float16)},
        {},
    ]
    assert len({checkpoints.digest(tree) for tree in trees}) == len(trees)
    assert checkpoints.digest({"a": x, "b": x + 1}) == checkpoints.digest({"b": x + 1, "a": x.copy()})
