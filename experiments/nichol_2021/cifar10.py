"""Unconditional CIFAR-10, Nichol & Dhariwal 2021, Table 2: L_hybrid with the cosine schedule, 3.17 bits/dim, FID 3.19.

    ddpm-jax prepare cifar10
    ddpm-jax train nichol_2021/cifar10 --workdir runs/nichol

The rows of their Table 2 for CIFAR-10 (500,000 training steps, T = 4000; bits/dim / FID), and the options:

    linear, L_simple   3.37 / 2.90    --schedule linear --loss simple
    linear, L_hybrid   3.26 / 3.07    --schedule linear
    cosine, L_simple   3.26 / 3.05    --loss simple
    cosine, L_hybrid   3.17 / 3.19    the defaults
    cosine, L_vlb      2.94 / 11.47   --loss vlb, with t drawn by importance

The network has a learned variance between beta tilde and beta, which holds for steps of any length: sample with fewer,
such as `ddpm-jax sample runs/nichol --steps 100 --spacing linspace`. The data are 170 MB to download. Here: not
measured.
"""

from typing import Literal

import optax

from ddpm_jax import training
from ddpm_jax.data import flip, tfds_images
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet

CLAIMS = (
    Claim("T", 4000, "Section 2.1"),
    Claim("batch size", 128, "Appendix A"),
    Claim("learning rate at step 1", 1e-4, "Appendix A: constant"),
    Claim("training steps", 500_000, "Appendix A"),
    Claim("EMA decay", 0.9999, "Appendix A"),
    Claim("dropout", 0.3, "Appendix A"),
    Claim("flips", 0, "released code"),
)
TABLE_2 = {  # (schedule, loss): (bits/dim, FID)
    ("linear", "simple"): (3.37, 2.90),
    ("linear", "hybrid"): (3.26, 3.07),
    ("cosine", "simple"): (3.26, 3.05),
    ("cosine", "hybrid"): (3.17, 3.19),
    ("cosine", "vlb"): (2.94, 11.47),
}
PARAMETERS = {"simple": 52_542_979, "hybrid": 52_546_438, "vlb": 52_546_438}
LOSSES = {"simple": losses.simple, "hybrid": losses.hybrid, "vlb": losses.Importance()}


def claims(schedule: str, loss: str) -> tuple[Claim, ...]:
    """The figures that the paper states for this row of Table 2, which has none for L_vlb with the linear schedule."""
    counted = Claim("parameters", PARAMETERS[loss], "counted from the released code")
    if (schedule, loss) not in TABLE_2:
        return counted, *CLAIMS
    bits, fid = TABLE_2[schedule, loss]
    return counted, *CLAIMS, Claim("bits/dim", bits, "Table 2"), Claim("FID", fid, "Table 2, against the training set")


def experiment(
    *,
    schedule: Literal["cosine", "linear"] = "cosine",
    loss: Literal["hybrid", "simple", "vlb"] = "hybrid",
    timesteps: int = 4000,
    width: int = 128,
    dropout: float = 0.3,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    num_steps: int = 500_000,
    batch_size: int = 128,
    learning_rate: float = 1e-4,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """CIFAR-10 (Nichol & Dhariwal 2021, Table 2).

    Args:
        schedule: Schedule of the betas; linear is that of Ho et al. 2020 times 1000 / T.
        loss: L_hybrid with a learned variance (hybrid), L_simple with the variance beta (simple), or L_vlb with a
            learned variance and t drawn by importance (vlb).
        timesteps: Number of diffusion steps T, at least 21.
        width: Channels of the U-Net at full resolution, a multiple of 32.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        num_steps: Number of training steps.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of AdamW, constant.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        flips: Mirror each training image with probability one half.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    made = schedules.cosine(timesteps) if schedule == "cosine" else schedules.linear_scaled(timesteps)
    process = gaussian.process(made)
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    if loss != "simple":
        parameterization = parameterizations.learned_range(process, parameterization)
    return Experiment(
        data=tfds_images("cifar10", (32, 32, 3), cost="170 MB to download, as much again on disk"),
        process=process,
        parameterization=parameterizations.clipped(process, parameterization),
        network=UNet(
            width=width,
            groups=min(32, width // 2),
            num_blocks=3,
            attention=(16, 8),
            heads=4,
            dropout=dropout,
            out_channels=3 if loss == "simple" else 6,
            scale_shift=True,
            norm_eps=1e-5,
            down_padding=1,
            cos_first=True,
            frequency_shift=0,
            time_scale=1000 / timesteps,  # rescale_timesteps of the released code
            dtype=dtype,
            remat=remat,
        ),
        optimizer=optax.adamw(learning_rate, weight_decay=0.0),
        loss=LOSSES[loss],
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        claims=claims(schedule, loss),
    )
