"""ImageNet at 64x64, Nichol & Dhariwal 2021: L_hybrid, 3.57 bits/dim, FID 19.2; with class labels FID 2.92.

    ddpm-jax prepare downsampled_imagenet/64x64
    ddpm-jax train nichol_2021/imagenet64 --workdir runs/imagenet64

    ddpm-jax train nichol_2021/imagenet64 --labels --workdir runs/imagenet64_labels --folder-of-images ILSVRC2012

The rows of their Table 1 (T = 4000 unless stated; bits/dim / FID), and the options:

    200,000 steps:    linear, L_simple, T = 1000   3.99 / 32.5    --schedule linear --loss simple --timesteps 1000
                      linear, L_simple             3.77 / 31.3    --schedule linear --loss simple
                      linear, L_hybrid             3.66 / 32.2    --schedule linear
                      cosine, L_simple             3.68 / 27.0    --loss simple
                      cosine, L_hybrid             3.62 / 28.0
                      cosine, L_vlb                3.57 / 56.7    --loss vlb, with t drawn by importance
    1,500,000 steps:  cosine, L_hybrid             3.57 / 19.2    the defaults
                      cosine, L_vlb                3.53 / 40.1    --loss vlb

with --num-steps 200000 for the first six. These FIDs are of 10,000 samples, which makes them about 2 larger than those
of 50,000. With --labels (270 million parameters, batches of 2048, 250,000 steps) the FID of 50,000 samples with 250
steps is 2.92, precision 0.82 and recall 0.71: `ddpm-jax sample runs/imagenet64_labels --steps 250 --spacing linspace`.

The images without labels are those of van den Oord et al. 2016, 12.6 GB to download. Those with labels are the authors'
own: ILSVRC 2012, cropped at the center and resized. --folder-of-images does the same to a folder with one subfolder for
each class. Without it, --labels reads the images of Chrabaszcz et al. 2017, which are resized in another way, after
`ddpm-jax prepare imagenet_resized/64x64`, 14.1 GB to download.

The flags of the released code for the model with labels do not rescale the timesteps, and weight L_vlb by 1 / T instead
of 0.001. So do we. Here: not measured.
"""

from functools import partial
from typing import Literal

import optax

from ddpm_jax import training
from ddpm_jax.data import Data, flip, folder, tfds_images
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet

SHAPE, CLASSES = (64, 64, 3), 1000
CLAIMS = (
    Claim("EMA decay", 0.9999, "Appendix A"),
    Claim("dropout", 0.0, "released code"),
    Claim("flips", 0, "released code"),
)
PARAMETERS = {
    (False, "simple"): 121_060_483,
    (False, "hybrid"): 121_063_942,
    (False, "vlb"): 121_063_942,
    (True, "hybrid"): 273_049_350,
}
"""(labels, loss): the number of parameters."""
TABLE_1 = {  # (schedule, loss, T, training steps): (bits/dim, FID)
    ("linear", "simple", 1000, 200_000): (3.99, 32.5),
    ("linear", "simple", 4000, 200_000): (3.77, 31.3),
    ("linear", "hybrid", 4000, 200_000): (3.66, 32.2),
    ("cosine", "simple", 4000, 200_000): (3.68, 27.0),
    ("cosine", "hybrid", 4000, 200_000): (3.62, 28.0),
    ("cosine", "vlb", 4000, 200_000): (3.57, 56.7),
    ("cosine", "hybrid", 4000, 1_500_000): (3.57, 19.2),
    ("cosine", "vlb", 4000, 1_500_000): (3.53, 40.1),
}


def claims(labels: bool, schedule: str, loss: str, timesteps: int, num_steps: int) -> tuple[Claim, ...]:
    """The figures that the paper states for this model, and for this row of Table 1 if it is one."""
    counted = [Claim("parameters", PARAMETERS[labels, loss], "counted from the released code")]
    if labels:
        training = (("T", 4000), ("batch size", 2048), ("learning rate at step 1", 3e-4), ("training steps", 250_000))
        own = [Claim(what, value, "released code") for what, value in training]
        return (*counted, *own, *CLAIMS, Claim("FID", 2.92, "50,000 samples, 250 steps"))
    own = [Claim("batch size", 128, "Appendix A"), Claim("learning rate at step 1", 1e-4, "Appendix A: constant")]
    bits, fid = TABLE_1.get((schedule, loss, timesteps, num_steps), (None, None))
    if bits is None or fid is None:
        return (*counted, *own, *CLAIMS)
    row = (Claim("T", timesteps, "Table 1"), Claim("training steps", num_steps, "Table 1"))
    results = (Claim("bits/dim", bits, "Table 1"), Claim("FID", fid, "Table 1, 10,000 samples"))
    return (*counted, *row, *own, *CLAIMS, *results)


def experiment(
    *,
    labels: bool = False,
    folder_of_images: str | None = None,
    test_percent: int = 0,
    schedule: Literal["cosine", "linear"] = "cosine",
    loss: Literal["hybrid", "simple", "vlb"] = "hybrid",
    timesteps: int = 4000,
    width: int | None = None,
    dropout: float = 0.0,
    label_dropout: float = 0.0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    num_steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """ImageNet at 64x64 (Nichol & Dhariwal 2021, Table 1).

    Args:
        labels: Train the larger, class-conditional model, which the paper has with the cosine schedule and L_hybrid.
        folder_of_images: Folder or zip of images, instead of TFDS's data set. With --labels, the class of an image is
            its first-level subfolder, of which there must be 1000.
        test_percent: Percentage of the images in the folder that forms the test split.
        schedule: Schedule of the betas; linear is that of Ho et al. 2020 times 1000 / T.
        loss: L_hybrid with a learned variance (hybrid), L_simple with the variance beta (simple), or L_vlb with a
            learned variance and t drawn by importance (vlb).
        timesteps: Number of diffusion steps T, at least 21.
        width: Channels of the U-Net at full resolution, a multiple of 32. Default: 128, or 192 with --labels.
        dropout: Dropout rate in the residual blocks.
        label_dropout: Probability that a training example has no label, for classifier-free guidance. If it is not 0,
            the network has one embedding more than that of the paper.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        num_steps: Number of training steps. Default: 1,500,000, or 250,000 with --labels.
        batch_size: Number of images per step, over all devices. Default: 128, or 2048 with --labels.
        learning_rate: Learning rate of AdamW, constant. Default: 1e-4, or 3e-4 with --labels.
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
    if labels and (schedule, loss) != ("cosine", "hybrid"):
        raise ValueError(f"--labels requires --schedule cosine and --loss hybrid, got {schedule} and {loss}")
    if label_dropout and not labels:
        raise ValueError(f"--label-dropout {label_dropout} requires --labels")
    num_steps = (250_000 if labels else 1_500_000) if num_steps is None else num_steps
    rate = (3e-4 if labels else 1e-4) if learning_rate is None else learning_rate
    process = gaussian.process(
        schedules.cosine(timesteps) if schedule == "cosine" else schedules.linear_scaled(timesteps)
    )
    parameterization = parameterizations.eps(process, parameterizations.fixed_large)
    if loss != "simple":
        parameterization = parameterizations.learned_range(process, parameterization)
    hybrid = partial(losses.hybrid, weight=1 / timesteps) if labels else losses.hybrid
    width = (192 if labels else 128) if width is None else width
    return Experiment(
        data=choose_data(labels, folder_of_images, test_percent),
        process=process,
        parameterization=parameterizations.clipped(process, parameterization),
        network=UNet(
            width=width,
            groups=min(32, width // 2),
            multipliers=(1, 2, 3, 4),
            num_blocks=3,
            attention=(16, 8),
            heads=4,
            dropout=dropout,
            out_channels=3 if loss == "simple" else 6,
            num_classes=CLASSES if labels else None,
            null_label=label_dropout > 0,
            scale_shift=True,
            norm_eps=1e-5,
            down_padding=1,
            cos_first=True,
            frequency_shift=0,
            time_scale=1.0 if labels else 1000 / timesteps,  # rescale_timesteps of the released code
            dtype=dtype,
            remat=remat,
        ),
        optimizer=optax.adamw(rate, weight_decay=0.0),
        loss={"hybrid": hybrid, "simple": losses.simple, "vlb": losses.Importance()}[loss],
        augment=flip if flips else None,
        label_dropout=label_dropout,
        batch_size=(2048 if labels else 128) if batch_size is None else batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        claims=claims(labels, schedule, loss, timesteps, num_steps),
    )


def choose_data(labels: bool, folder_of_images: str | None, test_percent: int) -> Data:
    """The images of the folder if one is given, otherwise a data set of TFDS, with labels or without."""
    classes = CLASSES if labels else None
    if folder_of_images is not None:
        return folder(folder_of_images, SHAPE, test_percent, labels=labels, num_classes=classes)
    if labels:
        return tfds_images("imagenet_resized/64x64", SHAPE, CLASSES, test="validation", cost="14.1 GB to download")
    return tfds_images("downsampled_imagenet/64x64", SHAPE, test="validation", cost="12.6 GB to download")
