"""CelebA-HQ at 256x256, Ho et al. 2020, Figure 1 and Appendix D. The paper gives samples and no number.

    ddpm-jax train ho_2020/celeba_hq --workdir runs/celeba_hq --folder-of-images CELEBA_HQ

CELEBA_HQ is a folder or zip of the 30,000 pictures. Without the knob they come from TFDS, whose celeb_a_hq wants
pictures that were made by hand: see https://www.tensorflow.org/datasets/catalog/celeb_a_hq.

Paper: TPU v3-8, 500k steps at 2.2 a second, 63 hours. Here: not measured.

Where the released code does otherwise than one would expect, the default is what depends on nothing but the run:
gradients are clipped by the norm of the whole batch's (released: of each of 8 replicas' 8 images, before they are
averaged; --replicas 8), and samples are rounded to bytes (released: the fraction is dropped, which makes them half a
level darker; --truncate).
"""

from typing import Literal

import jax
import optax

from ddpm_jax.data import flip, folder, tfds_images
from ddpm_jax.data.encodings import truncated
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet
from ddpm_jax.training import clip_in_parts

COST = "of pictures that are made by hand; --folder-of-images takes them as they are"
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
    flips: bool = True,
    remat: bool = False,
    replicas: int = 1,
    truncate: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
) -> Experiment:
    """CelebA-HQ at 256x256 (Ho et al. 2020).

    Args:
        folder_of_images: a folder or zip of pictures instead of TFDS's data set.
        timesteps: T, the steps of the diffusion, at least 21; the betas are those of T = 1000 times 1000 / T.
        width: channels of the U-Net at full resolution, a multiple of 32.
        dropout: in the residual blocks.
        dtype: that the network computes in; parameters, loss and sampling stay float32.
        num_steps: training steps.
        batch_size: images a step, over all devices.
        learning_rate: of Adam, after the warm-up.
        warmup: steps over which the learning rate rises from zero.
        ema_decay: of the average of the parameters that is sampled from.
        flips: mirror each training image with probability one half.
        remat: compute the blocks again in the backward pass, for less memory and a third more time.
        replicas: clip the gradients of each of so many parts of the batch, 8 as the released code; 1 is the whole.
        truncate: make bytes of samples by dropping the fraction, as the released code, not by rounding.
        seed: of the parameters, the order of the data and the noise.
        log_every: steps between rows of metrics.jsonl.
        sample_every: steps between sample grids.
        save_every: steps between checkpoints.
    """
    shape = (256, 256, 3)
    process = gaussian.process(schedules.linear_scaled(timesteps))
    rate = optax.linear_schedule(0.0, learning_rate, warmup)
    built = tfds_images("celeb_a_hq/256", shape, cost=COST)
    return Experiment(
        data=built if folder_of_images is None else folder(folder_of_images, shape),
        process=process,
        parameterization=parameterizations.clipped(parameterizations.eps(process)),
        network=UNet(width=width, multipliers=(1, 1, 2, 2, 4, 4), dropout=dropout, remat=remat, dtype=dtype),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        gradient=clip_in_parts(replicas) if replicas > 1 else jax.value_and_grad,
        encoding=truncated() if truncate else None,
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every),
        claims=CLAIMS,
    )
