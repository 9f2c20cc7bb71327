"""CelebA at 64x64, Song et al. 2021 (DDIM), Table 1: FID 17.33 in 10 steps, 9.17 in 50, 3.51 in 1000 (eta = 0).

    ddpm-jax prepare celeb_a
    ddpm-jax train song_2021/celeba --workdir runs/celeba
    ddpm-jax study sweep runs/celeba --samplers ddim --steps 10 20 50 100 1000 --etas 0 0.2 0.5 1

The rows of Table 1 for CelebA, FID by the number of steps of `ddpm-jax sample runs/celeba --sampler ddim --steps S`:

                 10       20      50     100   1000
    --eta 0     17.33   13.73    9.17   6.53   3.51
    --eta 0.2   17.66   14.11    9.51   6.79   3.64
    --eta 0.5   19.86   16.06   11.01   8.09   4.28
    --eta 1     33.12   26.03   18.48  13.93   5.98
    sigma hat  299.71  183.83   71.71  45.20   3.26    in 1000 steps: the ancestral sampler

The paper's models for CIFAR-10 and LSUN are those of Ho et al. 2020: ho_2020/cifar10 and ho_2020/lsun. Its steps are
floor(1000 i / S), which never reach t = 1000: `--spacing leading`. Here: not measured.

Each picture is cut to the 128x128 pixels from row 57 and column 25, as in the released code, which then resizes
bilinearly; here the filter is Lanczos. As in the released code, t is drawn in pairs t, T + 1 - t. There the loss is a
sum over pixels; here it is a mean, which differs for Adam in the clipping of the gradient only. Neither paper nor code
states the number of training steps: 500,000 is that of CelebA-HQ in Ho et al. 2020.
"""

from functools import partial
from typing import Literal

import optax

from ddpm_jax import training
from ddpm_jax.data import Cut, flip, folder, tfds_images
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet

FACE = Cut(box=(25, 57, 153, 185), of=(218, 178))
"""The part (left, top, right, bottom) of the aligned pictures, and their (height, width)."""
CLAIMS = (
    Claim("T", 1000, "as Ho et al. 2020"),
    Claim("beta_1", 1e-4, "as Ho et al. 2020"),
    Claim("beta_T", 0.02, "as Ho et al. 2020"),
    Claim("parameters", 78_700_803, "counted from the released code"),
    Claim("batch size", 128, "released code"),
    Claim("learning rate at step 1", 2e-4, "released code: constant"),
    Claim("EMA decay", 0.9999, "released code"),
    Claim("dropout", 0.1, "released code"),
    Claim("variance at t = 2", 1.1991992e-4, "released code: fixed_large"),
    Claim("x_0 is clipped", 0, "released code"),
    Claim("flips", 1, "released code"),
    Claim("FID", 3.26, "Table 1: sigma hat, 1000 steps"),
)


def experiment(
    *,
    folder_of_images: str | None = None,
    timesteps: int = 1000,
    width: int = 128,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    num_steps: int = 500_000,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = True,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """CelebA at 64x64 (Song et al. 2021, Table 1).

    Args:
        folder_of_images: Folder or zip of the aligned pictures (img_align_celeba) of 218x178 pixels, instead of TFDS's
            data set.
        timesteps: Number of diffusion steps T, at least 21. The betas are those for T = 1000 times 1000 / T.
        width: Channels of the U-Net at full resolution, a multiple of 32.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        num_steps: Number of training steps.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of Adam, constant.
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
    process, shape = gaussian.process(schedules.linear_scaled(timesteps)), (64, 64, 3)
    if folder_of_images is None:
        data = tfds_images("celeb_a", shape, fit=True, box=FACE, cost="1.4 GB to download, as much again on disk")
    else:
        data = folder(folder_of_images, shape, crop=FACE)
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.eps(process, parameterizations.fixed_large),
        network=UNet(width, (1, 2, 2, 2, 4), dropout=dropout, groups=min(32, width // 2), dtype=dtype, remat=remat),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate)),
        loss=partial(losses.simple, draw=losses.antithetic),
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        claims=CLAIMS,
    )
