"""Fashion-MNIST, 28x28 grey, 60,000 images: a real TFDS run (Xiao et al. 2017; method of Ho et al. 2020).

    ddpm-jax prepare fashion_mnist
    ddpm-jax train fashion_mnist --workdir runs/fashion_mnist

No paper's row: not measured to the end.
"""

from typing import Literal

import optax

from ddpm_jax.data import tfds_images
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet
from ddpm_jax.training import ema_ramp


def experiment(
    *,
    timesteps: int = 1000,
    width: int = 64,
    num_steps: int = 40_000,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    warmup: int = 1000,
    ema_decay: float = 0.9995,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 2000,
    save_every: int = 2000,
) -> Experiment:
    """Fashion-MNIST through TFDS.

    Args:
        timesteps: T, the steps of the diffusion, at least 21; the betas are those of T = 1000 times 1000 / T.
        width: channels of the U-Net at full resolution, a multiple of 16.
        num_steps: training steps.
        batch_size: images a step, over all devices.
        learning_rate: of Adam, after the warm-up.
        warmup: steps over which the learning rate rises from zero.
        ema_decay: of the average of the parameters that is sampled from, once it has ramped up to it.
        dropout: in the residual blocks.
        dtype: that the network computes in; parameters, loss and sampling stay float32.
        remat: compute the blocks again in the backward pass, for less memory and a third more time.
        seed: of the parameters, the order of the data and the noise.
        log_every: steps between rows of metrics.jsonl.
        sample_every: steps between sample grids.
        save_every: steps between checkpoints.
    """
    process = gaussian.process(schedules.linear_scaled(timesteps))
    eps = parameterizations.eps(process, parameterizations.fixed_large)
    rate = optax.linear_schedule(0.0, learning_rate, warmup)
    return Experiment(
        data=tfds_images("fashion_mnist", (28, 28, 1), num_classes=10, cost="31 MB to download"),
        process=process,
        parameterization=parameterizations.clipped(eps),
        network=UNet(
            width=width, multipliers=(1, 2, 2), attention=(14,), dropout=dropout, groups=16, dtype=dtype, remat=remat
        ),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_ramp(ema_decay),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every),
    )
