"""LSUN at 256x256, Ho et al. 2020, Table 3. FID: bedroom 6.36 (large 4.90), church 7.89, cat 19.75.

    ddpm-jax train ho_2020/lsun --workdir runs/bedroom --category bedroom --folder-of-images BEDROOM
    ddpm-jax train ho_2020/lsun --workdir runs/bedroom_large --category bedroom --large --folder-of-images BEDROOM
    ddpm-jax train ho_2020/lsun --workdir runs/church --category church_outdoor --folder-of-images CHURCH
    ddpm-jax train ho_2020/lsun --workdir runs/cat --category cat --folder-of-images CAT

BEDROOM is a folder or zip of the category's pictures, of any size. Without the knob they come from TFDS, as prepared by
`ddpm-jax prepare lsun/bedroom`: bedroom 46 GB to download, church_outdoor 2.5, cat 45; about three times that
on disk while they are unpacked and built.

Paper: TPU v3-8; at its 2.2 steps a second bedroom's 2.4M steps take 303 hours, church's 1.2M 152, cat's 1.8M 227; the
large model has 1.15M, of unknown speed. Here: not measured.

The paper flips images at random except for bedroom, the released code's instructions do so except for cat: the default
of --flips is the paper's. Of the large model the paper tells the number of parameters, "approximately 256 million":
width 192 gives 255,677,955.

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
    """What the paper states of this row."""
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
    flips: bool | None = None,
    remat: bool = False,
    replicas: int = 1,
    truncate: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
) -> Experiment:
    """LSUN at 256x256 (Ho et al. 2020, Table 3).

    Args:
        category: of LSUN.
        large: the model of 256 million parameters, in the paper for bedroom alone.
        folder_of_images: a folder or zip of pictures instead of TFDS's data set.
        timesteps: T, the steps of the diffusion, at least 21; the betas are those of T = 1000 times 1000 / T.
        width: channels of the U-Net at full resolution, a multiple of 32; by default 128, large 192.
        dropout: in the residual blocks.
        dtype: that the network computes in; parameters, loss and sampling stay float32.
        num_steps: training steps; by default the paper's for the category.
        batch_size: images a step, over all devices.
        learning_rate: of Adam, after the warm-up.
        warmup: steps over which the learning rate rises from zero.
        ema_decay: of the average of the parameters that is sampled from.
        flips: mirror each training image with probability one half; by default the paper's for the category.
        remat: compute the blocks again in the backward pass, for less memory and a third more time.
        replicas: clip the gradients of each of so many parts of the batch, 8 as the released code; 1 is the whole.
        truncate: make bytes of samples by dropping the fraction, as the released code, not by rounding.
        seed: of the parameters, the order of the data and the noise.
        log_every: steps between rows of metrics.jsonl.
        sample_every: steps between sample grids.
        save_every: steps between checkpoints.
    """
    if large and category != "bedroom":
        raise ValueError(f"--large --category {category}: the paper's large model is of bedroom")
    shape = (256, 256, 3)
    width = (192 if large else 128) if width is None else width
    num_steps = (LARGE_STEPS if large else STEPS[category]) if num_steps is None else num_steps
    flips = category != "bedroom" if flips is None else flips
    process = gaussian.process(schedules.linear_scaled(timesteps))
    rate = optax.linear_schedule(0.0, learning_rate, warmup)
    if folder_of_images is None:
        cost = f"{GIGABYTES[category]} GB to download, about three times that on disk; or --folder-of-images"
        data = tfds_images(f"lsun/{category}", shape, test="validation", fit=True, cost=cost)
    else:
        data = folder(folder_of_images, shape)
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(parameterizations.eps(process)),
        network=UNet(width, (1, 1, 2, 2, 4, 4), dropout=dropout, remat=remat, dtype=dtype),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        gradient=clip_in_parts(replicas) if replicas > 1 else jax.value_and_grad,
        encoding=truncated() if truncate else None,
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every),
        claims=claims(category, large),
    )
