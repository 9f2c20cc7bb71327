"""LSUN at 256x256, Ho et al. 2020, Table 3. FID: bedroom 6.36 (large 4.90), church 7.89, cat 19.75.

    ddpm-jax train ho_2020/lsun --workdir runs/bedroom --category bedroom --folder-of-images BEDROOM
    ddpm-jax train ho_2020/lsun --workdir runs/bedroom_large --category bedroom --large --folder-of-images BEDROOM
    ddpm-jax train ho_2020/lsun --workdir runs/church --category church_outdoor --folder-of-images CHURCH
    ddpm-jax train ho_2020/lsun --workdir runs/cat --category cat --folder-of-images CAT

BEDROOM, CHURCH and CAT are folders or zips with the images of one category, of any size. Without --folder-of-images the
images are read from TFDS, after `ddpm-jax prepare lsun/bedroom`: bedroom is 46 GB to download, church_outdoor 2.5 GB,
cat 45 GB; the preparation needs about three times that on disk.

Paper: TPU v3-8. At 2.2 steps per second the 2.4M steps of bedroom take 303 hours, the 1.2M of church 152 hours, the
1.8M of cat 227 hours; the large model has 1.15M steps, of unknown speed. Here: not measured.

The paper flips images at random for all categories but bedroom, the instructions of the released code for all but cat.
The default of --flips is the paper's. The paper gives no width for the large model, only "approximately 256 million"
parameters: width 192 gives 255,677,955.

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

STEPS = {"bedroom": 2_400_000, "church_outdoor": 1_200_000, "cat": 1_800_000}
LARGE_STEPS = 1_150_000
GIGABYTES = {"bedroom": 46, "church_outdoor": 2.5, "cat": 45}
FID = {"bedroom": 6.36, "church_outdoor": 7.89, "cat": 19.75}
LARGE_FID = 4.90
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
)


def claims(category: str, large: bool) -> tuple[Claim, ...]:
    """The figures that the paper states for this model."""
    counted = "counted from the released code" if not large else "counted at width 192"
    return (
        Claim("parameters", 255_677_955 if large else 113_673_219, f"Appendix B: 114 or 256 million; {counted}"),
        *CLAIMS,
        Claim("flips", category != "bedroom", "Appendix B"),
        Claim("training steps", LARGE_STEPS if large else STEPS[category], "Appendix B"),
        Claim("FID", LARGE_FID if large else FID[category], "Table 3"),
    )


def experiment(
    *,
    category: Literal["bedroom", "church_outdoor", "cat"] = "bedroom",
    large: bool = False,
    folder_of_images: str | None = None,
    timesteps: int = 1000,
    width: int | None = None,
    dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    num_steps: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-5,
    warmup: int = 5000,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool | None = None,
    remat: bool = False,
    replicas: int = 1,
    truncate: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """LSUN at 256x256 (Ho et al. 2020, Table 3).

    Args:
        category: Category of LSUN.
        large: Train the model of 256 million parameters, which the paper has for bedroom only.
        folder_of_images: Folder or zip of images, instead of TFDS's data set.
        timesteps: Number of diffusion steps T, at least 21. The betas are those for T = 1000 times 1000 / T.
        width: Channels of the U-Net at full resolution, a multiple of 32. Default: 128, or 192 with --large.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        num_steps: Number of training steps. Default: the paper's for the category.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup: Number of steps over which the learning rate rises from zero.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        flips: Mirror each training image with probability one half. Default: the paper's for the category.
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
    if large and category != "bedroom":
        raise ValueError(f"--large requires --category bedroom, as in the paper; got {category}")
    shape = (256, 256, 3)
    width = (192 if large else 128) if width is None else width
    num_steps = (LARGE_STEPS if large else STEPS[category]) if num_steps is None else num_steps
    flips = category != "bedroom" if flips is None else flips
    process = gaussian.process(schedules.linear_scaled(timesteps))
    rate = training.warmup(learning_rate, warmup)
    if folder_of_images is None:
        cost = f"{GIGABYTES[category]} GB to download, about three times that on disk; --folder-of-images avoids it"
        data = tfds_images(f"lsun/{category}", shape, test="validation", fit=True, cost=cost)
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
        claims=claims(category, large),
    )
