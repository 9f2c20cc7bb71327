"""The U-Net of CIFAR-10 written plainly with Flax's own layers, and what an accelerator's compiler makes of both.

    python tests/benchmarks/plain_unet.py [--accelerator H100] [--batch-size 512] [--dtype bfloat16]

Widths, blocks, attention and number of parameters are those of `ddpm_jax.networks.UNet`, as is the train step. The
accelerator need not be there; its compiler must be installed, as for ``ddpm-jax plan --compile``.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from flax import linen as nn

from ddpm_jax.experiment import Experiment, shapes
from ddpm_jax.networks.layers import timestep_embedding
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.accelerators import named
from ddpm_jax.runs.device_plan import cost_table, device_plan
from ddpm_jax.runs.requests import Placement


class Block(nn.Module):
    """A residual block of nn.GroupNorm, nn.Conv, nn.Dense and nn.Dropout, with attention at a height of 16."""

    features: int
    attend: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, train: bool) -> jax.Array:
        h = nn.swish(nn.GroupNorm(32, dtype=self.dtype)(x))
        h = nn.Conv(self.features, (3, 3), dtype=self.dtype)(h)
        h = h + nn.Dense(self.features, dtype=self.dtype)(nn.swish(emb))[:, None, None]
        h = nn.swish(nn.GroupNorm(32, dtype=self.dtype)(h))
        h = nn.Dropout(0.1, deterministic=not train)(h)
        h = nn.Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype)(x)
        return attended(x + h, self.dtype) if self.attend else x + h


def attended(x: jax.Array, dtype: Any) -> jax.Array:
    """The input plus nn.MultiHeadDotProductAttention, of one head, over its pixels. Called inside a module."""
    batch, height, width, channels = x.shape
    h = nn.GroupNorm(32, dtype=dtype)(x).reshape(batch, height * width, channels)
    return x + nn.MultiHeadDotProductAttention(1, dtype=dtype, qkv_features=channels)(h).reshape(x.shape)


class PlainUNet(nn.Module):
    """The network: ``network(x, index, label, train)`` -> output, float32."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, index: jax.Array, label: Any = None, train: bool = False) -> jax.Array:
        widths, channels, dtype = (128, 256, 256, 256), x.shape[-1], self.dtype
        emb = nn.Dense(512, dtype=dtype)(timestep_embedding(index, 128).astype(dtype))
        emb = nn.Dense(512, dtype=dtype)(nn.swish(emb))
        h = nn.Conv(128, (3, 3), dtype=dtype)(x.astype(dtype))
        skips = [h]
        for level, features in enumerate(widths):
            for _ in range(2):
                h = Block(features, h.shape[1] == 16, dtype)(h, emb, train)
                skips.append(h)
            if level < len(widths) - 1:
                h = nn.Conv(features, (3, 3), (2, 2), dtype=dtype)(h)
                skips.append(h)
        h = Block(256, True, dtype)(h, emb, train)
        h = Block(256, False, dtype)(h, emb, train)
        for level, features in reversed(list(enumerate(widths))):
            for _ in range(3):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = Block(features, h.shape[1] == 16, dtype)(h, emb, train)
            if level > 0:
                doubled = (len(h), 2 * h.shape[1], 2 * h.shape[2], features)
                h = nn.Conv(features, (3, 3), dtype=dtype)(jax.image.resize(h, doubled, "nearest"))
        h = nn.swish(nn.GroupNorm(32)(h.astype(jnp.float32)))
        return nn.Conv(channels, (3, 3), kernel_init=nn.initializers.zeros)(h)


def parameters(experiment: Experiment) -> int:
    """The number of parameters of the network."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(experiment)))


def main(accelerator: str = "H100", batch_size: int = 512, dtype: Literal["float32", "bfloat16"] = "bfloat16") -> None:
    """Prints the cost of the train step of our network and of the plain one."""
    function = experiment_files.read(experiment_files.find("ho_2020/cifar10"))
    ours = experiment_files.build(function, {"dtype": dtype, "batch_size": batch_size})
    plain = dataclasses.replace(ours, network=PlainUNet(jnp.dtype(dtype)))
    for name, each in (("ddpm_jax", ours), ("plain Flax", plain)):
        train_step = next(iter(device_plan(each, Placement(), named(accelerator))))
        print(f"{name}, {parameters(each):,} parameters\n{cost_table(train_step)}\n", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
