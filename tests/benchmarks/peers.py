"""Our U-Net beside the same one of diffusers on PyTorch: forward, train step, sampling, bits/dim; a table of ratios.

    pip install -e '.[dev,parity]'
    python tests/benchmarks/peers.py [--sizes digits fashion cifar10] [--rounds 5] [--dtype float32] [--no-compile]

Both are made from the same config and have the same number of parameters. Theirs is channels-last, compiled where a
compiler is there, with fused Adam and scaled-dot-product attention. Runs alternate in one process, each warm; a row is
the median of the rounds' ratios, with the least and the greatest. Below one, ours is faster.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, Run, bound_fn, init_fn, keys, loss_fn
from ddpm_jax.interop import unets
from ddpm_jax.networks import UNet
from ddpm_jax.training import create, make_train_step

sys.path.insert(0, str(Path(__file__).parents[1]))
from interop.models import CIFAR

SIZES: dict[str, tuple[dict[str, Any], int, int]] = {
    "digits": (
        CIFAR
        | {
            "sample_size": 8,
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [32, 64],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "layers_per_block": 1,
            "norm_num_groups": 8,
        },
        64,
        1000,
    ),
    "fashion": (
        CIFAR
        | {
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [64, 128, 128],
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        },
        16,
        50,
    ),
    "cifar10": (CIFAR, 4, 10),
}
"""The config, the batch, and the steps that are sampled: of the larger ones few, since each step costs the same."""


class Side(NamedTuple):
    """What is timed; each call ends when its result is there."""

    forward: Callable[[], Any]
    train: Callable[[], Any]
    sample_one: Callable[[], Any]
    sample_batch: Callable[[], Any]
    ddim_batch: Callable[[], Any]
    bits: Callable[[], Any]


BITS_TERMS = 10


def ours(config: dict[str, Any], batch: int, steps: int, dtype: str) -> tuple[Side, int]:
    """On JAX, with everything jitted, and the number of parameters."""
    fields = unets.to_fields(config)
    shape = fields.pop("image_shape")
    process = gaussian.process(schedules.linear(1000))
    experiment = Experiment(
        data=Data("random", shape, lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process, parameterizations.fixed_large),
        network=UNet(**fields, dtype=dtype),
        optimizer=optax.adam(2e-4),
        batch_size=batch,
        num_steps=1,
        ema_decay=0.9999,
    )
    params = jax.jit(init_fn(experiment))(jax.random.key(0))
    x, index = jnp.zeros((batch, *shape)), jnp.full(batch, 500)
    images = {"image": np.random.default_rng(0).integers(0, 256, (batch, *shape)).astype(np.uint8)}
    forward = jax.jit(lambda params, x: experiment.network.apply({"params": params}, x, index))
    step = jax.jit(make_train_step(loss_fn(experiment), experiment.optimizer, 0.9999, 0), donate_argnums=0)
    state = jax.jit(lambda params: create(params, experiment.optimizer))(params)
    run = Run(experiment, params, 0)
    ancestral, ddim = jax.jit(run.sampler(steps)), jax.jit(run.sampler(min(50, steps), eta=0.0))
    bound, times = jax.jit(bound_fn(experiment)), jnp.arange(2, 2 + BITS_TERMS)

    def train():
        nonlocal state
        state, metrics = step(state, images)
        return metrics

    side = Side(
        forward=lambda: forward(params, x),
        train=train,
        sample_one=lambda: ancestral(keys(0, 1)),
        sample_batch=lambda: ancestral(keys(0, batch)),
        ddim_batch=lambda: ddim(keys(0, batch)),
        bits=lambda: bound(params, keys(0, batch), images, times),
    )
    blocking = Side(*(lambda call=call: jax.block_until_ready(call()) for call in side))
    return blocking, sum(leaf.size for leaf in jax.tree.leaves(params))


def theirs(config: dict[str, Any], batch: int, steps: int, dtype: str, compiled: bool) -> tuple[Side, int]:
    """On PyTorch, and the number of parameters."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, dtype)
    made = UNet2DModel(**config).to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(made).requires_grad_(False)
    network: Any = torch.compile(made) if compiled else made
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-4, fused=True)
    size, channels = config["sample_size"], config["in_channels"]
    x = torch.zeros(batch, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
    index = torch.full((batch,), 500, device=device)
    clean = torch.rand_like(x) * 2 - 1
    scheduler = DDPMScheduler(1000, variance_type="fixed_large", clip_sample=False)
    alpha_bar = scheduler.alphas_cumprod.to(device)

    def call(x, t):
        with torch.autocast(device, kind, enabled=dtype != "float32"):
            return network(x, t).sample

    def train():
        t = torch.randint(0, 1000, (batch,), device=device)
        noise, kept = torch.randn_like(clean), alpha_bar[t][:, None, None, None]
        loss = (call(kept.sqrt() * clean + (1 - kept).sqrt() * noise, t).float() - noise).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(list(average.parameters()), list(made.parameters()), 1e-4)

    def sample(scheduler, count, num):
        scheduler.set_timesteps(count)
        x = torch.randn(num, channels, size, size, device=device).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            for t in scheduler.timesteps:
                x = scheduler.step(call(x, t.expand(num).to(device)), t, x).prev_sample

    def bits():
        with torch.no_grad():
            for t in range(1, 1 + BITS_TERMS):
                noise, kept, before = torch.randn_like(clean), alpha_bar[t], alpha_bar[t - 1]
                x_t = kept.sqrt() * clean + (1 - kept).sqrt() * noise
                guess = (x_t - (1 - kept).sqrt() * call(x_t, index * 0 + t).float()) / kept.sqrt()
                beta = 1 - kept / before
                weight = before.sqrt() * beta / (1 - kept)
                (weight**2 * (clean - guess).square() / (2 * beta)).sum(dim=(1, 2, 3))

    def forward():
        with torch.no_grad():
            call(x, index)

    side = Side(
        forward=forward,
        train=train,
        sample_one=lambda: sample(scheduler, steps, 1),
        sample_batch=lambda: sample(scheduler, steps, batch),
        ddim_batch=lambda: sample(DDIMScheduler(1000), min(50, steps), batch),
        bits=bits,
    )
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    return Side(*(lambda call=call: (call(), wait()) for call in side)), sum(p.numel() for p in made.parameters())


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(
    sizes: tuple[Literal["digits", "fashion", "cifar10"], ...] = ("digits", "fashion", "cifar10"),
    rounds: int = 5,
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: bool = True,
    batch: int | None = None,
    what: tuple[str, ...] = Side._fields,
) -> None:
    """Prints a row for each size and thing that is timed."""
    told = f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, PyTorch {torch.__version__}, {dtype}"
    print(f"{told}{', compiled' if compile else ''}; seconds ours / theirs = ratio (least to greatest)", flush=True)
    for name in sizes:
        config, default, steps = SIZES[name]
        size = batch or default
        one, count = ours(config, size, steps, dtype)
        other, their_count = theirs(config, size, steps, dtype, compile)
        assert count == their_count, f"{count} parameters, theirs {their_count}"
        for field in what:
            calls = getattr(one, field), getattr(other, field)
            for call in calls:
                call()
            pairs = [(seconds(calls[0]), seconds(calls[1])) for _ in range(rounds)]
            ratios = sorted(a / b for a, b in pairs)
            medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
            print(
                f"{name:8} {count:>11,} parameters, batch {size:3}  {field:13} {medians[0]:8.4f} / {medians[1]:8.4f}"
                f" = {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    tyro.cli(main)
