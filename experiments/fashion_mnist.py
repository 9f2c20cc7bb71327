"""Fashion-MNIST, 60,000 grey images of 28x28 from TFDS (Xiao et al. 2017), by the method of Ho et al. 2020.

    ddpm-jax prepare fashion_mnist
    ddpm-jax train fashion_mnist --workdir runs/fashion_mnist

The run is not from a paper. On one CPU core it takes about 75 minutes. docs/results.md has its figures with
--conditional.
"""

from typing import Literal

import optax

from ddpm_jax import training
from ddpm_jax.data import tfds_images
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet


def experiment(
    *,
    timesteps: int = 1000,
    schedule: Literal["linear", "cosine"] = "linear",
    width: int = 32,
    num_steps: int = 5000,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.999,
    power_ema: bool = False,
    conditional: bool = False,
    learned_range: bool = False,
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    seed: int = 0,
    log_every: int = 50,
    sample_every: int = 1000,
    save_every: int = 500,
    evaluate_every: int | None = None,
) -> Experiment:
    """Fashion-MNIST from TFDS.

    Args:
        timesteps: Number of diffusion steps T, at least 21 if the schedule is linear.
        schedule: Schedule of the noise. linear has the betas for T = 1000 times 1000 / T, cosine is that of Nichol &
            Dhariwal 2021.
        width: Channels of the U-Net at full resolution, a multiple of 16.
        num_steps: Number of training steps, over which the learning rate falls to zero.
        batch_size: Number of images per step, over all devices.
        learning_rate: Highest learning rate of Adam.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling. The decay starts lower
            and rises to this value.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        conditional: Give the network the class of each image, or no class with probability 0.1, for sampling by class
            (--label) and guidance (--guidance).
        learned_range: Train a variance between beta tilde and beta by L_hybrid, as Nichol & Dhariwal 2021.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    noise = schedules.linear_scaled(timesteps) if schedule == "linear" else schedules.cosine(timesteps)
    process = gaussian.process(noise)
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    if learned_range:
        parameterization = parameterizations.learned_range(process, parameterization)
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, min(100, num_steps // 10), max(1, num_steps))
    return Experiment(
        data=tfds_images("fashion_mnist", (28, 28, 1), num_classes=10, cost="31 MB to download"),
        process=process,
        parameterization=parameterizations.clipped(process, parameterization),
        network=UNet(
            width=width,
            multipliers=(1, 2, 2),
            attention=(14,),
            dropout=dropout,
            out_channels=2 if learned_range else None,
            num_classes=10 if conditional else None,
            groups=min(16, width // 2),
            dtype=dtype,
            remat=remat,
        ),
        loss=losses.hybrid if learned_range else losses.simple,
        label_dropout=0.1 if conditional else 0.0,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=training.ema_ramp(ema_decay),
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
    )
