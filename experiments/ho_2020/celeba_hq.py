"""CelebA-HQ at 256x256, Ho et al. 2020, Figure 1 and Appendix D. The paper gives samples and no numbers.

    ddpm-jax train ho_2020/celeba_hq --workdir runs/celeba_hq --folder-of-images CELEBA_HQ

CELEBA_HQ is a folder or zip of the 30,000 images. Without --folder-of-images the images are read from TFDS, whose data
set celeb_a_hq must be prepared by hand: see https://www.tensorflow.org/datasets/catalog/celeb_a_hq.

Paper: TPU v3-8, 500k steps at 2.2 steps per second, 63 hours. Here: not measured.

Two defaults differ from the released code. The gradient of the whole batch is clipped by its norm, so that results do
not depend on the number of devices; the released code clips the gradients of 8 replicas with 8 images each, then
averages them (--replicas 8). Samples are rounded to bytes; the released code truncates them, which makes them half a
level darker (--truncate).
"""

from typing import Literal

import jax
import optax

from ddpm_jax import training
from ddpm_jax.data import flip, folder, tfds_images
from ddpm_jax.data.encodings import evenly, truncated
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet

COST = "from images prepared by hand, which --folder-of-images reads without preparation"
CLAIMS = (
    Claim("T", 1000, "Section 4"),
    Claim("beta_1", 1e-4, "Section 4"),
    Claim("beta_T", 0.02, "Section 4"),
    Claim("batch size", 64, "Appendix B"),
    Claim("learning rate at step 2500", 1e-5, "released code: rises over 5000 steps"),
    Claim("learning rate after step 5000", 2e-5, "Appendix B"),
    Claim("EMA decay", 0.9999, "Appendix B"),
    Claim("dropout", 0, "Appendix B"),
    Claim("variance at t = 2", 5.4531877e-5, "released code: fixed_small"),
    Claim("x_0 is clipped", 1, "released code"),
    Claim("flips", 1, "Appendix B"),
    Claim("training steps", 500_000, "Appendix B"),
    Claim("parameters", 113_673_219, "Appendix B: 114 million; counted from the released code"),
)


def experiment(
    *,
    folder_of_images: str | None = None,
    timesteps: int = 1000,
    width: int = 128,
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    num_steps: int = 500_000,
    batch_size: int = 64,
    learning_rate: float = 2e-5,
    warmup: int = 5000,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = True,
    remat: bool = False,
    replicas: int = 1,
    truncate: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """CelebA-HQ at 256x256 (Ho et al. 2020).

    Args:
        folder_of_images: Folder or zip of images, instead of TFDS's data set.
        timesteps: Number of diffusion steps T, at least 21. The betas are those for T = 1000 times 1000 / T.
        width: Channels of the U-Net at full resolution, a multiple of 32.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        num_steps: Number of training steps.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup: Number of steps over which the learning rate rises from zero.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        flips: Mirror each training image with probability one half.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        replicas: Number of parts of the batch whose gradients are clipped separately, before they are averaged. The
            released code has 8; 1 clips the gradient of the whole batch.
        truncate: Truncate samples to bytes, as in the released code, instead of rounding them.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    shape = (256, 256, 3)
    process = gaussian.process(schedules.linear_scaled(timesteps))
    rate = training.warmup(learning_rate, warmup)
    if folder_of_images is None:
        data = tfds_images("celeb_a_hq/256", shape, cost=COST)
    else:
        data = folder(folder_of_images, shape)
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(process, parameterizations.eps(process)),
        network=UNet(width, (1, 1, 2, 2, 4, 4), dropout=dropout, groups=min(32, width // 2), remat=remat, dtype=dtype),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        gradient=training.clip_in_parts(replicas) if replicas > 1 else jax.value_and_grad,
        encoding=truncated() if truncate else evenly(),
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        claims=CLAIMS,
    )
