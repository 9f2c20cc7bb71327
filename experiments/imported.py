"""A U-Net with a Gaussian process, as `ddpm-jax convert` makes it from a checkpoint of another library.

    ddpm-jax convert google/ddpm-cifar10-32 runs/cifar10 --weights raw --data cifar10
    ddpm-jax sample runs/cifar10

The first argument of `convert` is the folder or file of the checkpoint on this machine: download it first. Its config
files, or the shapes of its tensors and the options of `convert`, determine the knobs. The defaults of the knobs are
those of this checkpoint, the CIFAR-10 model of Ho et al. 2020. The experiment can also be trained from the start:
ddpm-jax train imported --workdir DIR --data cifar10.
"""

from typing import Literal

import optax

from ddpm_jax import training
from ddpm_jax.data import Data, flip, folder, tfds_images
from ddpm_jax.diffusion import Parameterization, Process, gaussian, losses, parameterizations, samplers, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet

SCHEDULES = {
    "linear": schedules.linear,
    "quadratic": schedules.quadratic,
    "cosine": lambda timesteps, beta_1, beta_T: schedules.cosine(timesteps),
    "sigmoid": schedules.sigmoid,
}
PREDICTIONS = {"eps": parameterizations.eps, "x0": parameterizations.x0, "v": parameterizations.v}
VARIANCES = {"fixed_small": parameterizations.fixed_small, "fixed_large": parameterizations.fixed_large}


def experiment(
    *,
    image_shape: tuple[int, int, int] = (32, 32, 3),
    width: int = 128,
    multipliers: tuple[float, ...] = (1.0, 2.0, 2.0, 2.0),
    num_blocks: int = 2,
    attention: tuple[int, ...] = (16,),
    heads: int = 1,
    head_dim: int | None = None,
    dropout: float = 0.1,
    out_channels: int | None = None,
    num_classes: int | None = None,
    groups: int = 32,
    norm_eps: float = 1e-6,
    down_padding: Literal[0, 1] = 0,
    cos_first: bool = False,
    frequency_shift: int = 1,
    time_scale: float = 1.0,
    scale_shift: bool = False,
    residual_resampling: bool = False,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    timesteps: int = 1000,
    schedule: Literal["linear", "quadratic", "cosine", "sigmoid", "betas"] = "linear",
    beta_1: float = 1e-4,
    beta_T: float = 0.02,
    betas: tuple[float, ...] | None = None,
    prediction: Literal["eps", "x0", "v"] = "eps",
    variance: Literal["fixed_small", "fixed_large", "learned_range"] = "fixed_large",
    clip: float | None = 1.0,
    sampler: Literal["ancestral", "ddim"] = "ancestral",
    data: str | None = None,
    test_split: str = "test",
    folder_of_images: str | None = None,
    test_percent: int = 0,
    label_dropout: float = 0.0,
    num_steps: int = 800_000,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    warmup: int = 5000,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = True,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """A U-Net with a Gaussian process.

    Args:
        image_shape: Height, width and channels of the images.
        width: Channels of the U-Net at full resolution.
        multipliers: Channels of each level divided by width. Each level has half the resolution of the one before.
        num_blocks: Number of residual blocks per level on the way down.
        attention: Heights in pixels of the resolutions at which the U-Net has attention.
        heads: Number of attention heads, unless head_dim is given.
        head_dim: Channels per attention head.
        dropout: Dropout rate in the residual blocks.
        out_channels: Channels of the output. Default: those of the images. A learned variance needs twice that.
        num_classes: Number of class labels. Default: an unconditional network. In a folder, the class of an image is
            its first-level subfolder.
        groups: Number of groups of the group normalization.
        norm_eps: Epsilon of the group normalization.
        down_padding: Number of zeros before the first row and column where the resolution is halved.
        cos_first: Place the cosines before the sines in the timestep embedding.
        frequency_shift: The shift in the frequencies 10000^(-k / (half - shift)) of the timestep embedding, where half
            is half the width of the embedding.
        time_scale: The timestep embedding is that of the timestep times this number.
        scale_shift: The timestep embedding scales and shifts the second normalization of each block, instead of being
            added before it.
        residual_resampling: Halve and double the resolution in residual blocks, not by convolutions.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        timesteps: Number of diffusion steps T. With --betas, T is the number of betas instead.
        schedule: Schedule of the betas.
        beta_1: First beta. The schedules cosine and betas do not use it.
        beta_T: Last beta. The schedules cosine and betas do not use it.
        betas: All betas, from beta_1 to beta_T, for --schedule betas.
        prediction: Target of the network: the noise (eps), the image (x0), or v (Salimans & Ho 2022).
        variance: Variance of the reverse process: beta tilde (fixed_small), beta (fixed_large), or learned between the
            two (learned_range), which is trained with L_hybrid (Nichol & Dhariwal 2021).
        clip: Clip estimates of x_0 to [-clip, clip]; None to leave them unclipped.
        sampler: The sampler of the run. `ddpm-jax sample` can choose another, and fewer than T steps.
        data: TFDS data set for training and evaluation. Without it or --folder-of-images a run can only be sampled.
        test_split: Name of its test split.
        folder_of_images: Folder or zip of images, instead of a TFDS data set.
        test_percent: Percentage of the images in the folder that forms the test split.
        label_dropout: Probability that a training example has no label, for classifier-free guidance.
        num_steps: Number of training steps.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup: Number of steps over which the learning rate rises from zero.
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
    if (betas is None) == (schedule == "betas"):
        raise ValueError(f"--schedule betas and --betas require each other, got --schedule {schedule}")
    noise = schedules.from_betas(betas) if betas is not None else SCHEDULES[schedule](timesteps, beta_1, beta_T)
    process = gaussian.process(noise)
    parameterization = parameterize(process, prediction, variance)
    if clip is not None:
        parameterization = parameterizations.clipped(process, parameterization, -clip, clip)
    rate = training.warmup(learning_rate, warmup)
    return Experiment(
        data=choose_data(image_shape, num_classes, data, test_split, folder_of_images, test_percent),
        process=process,
        parameterization=parameterization,
        network=UNet(
            width=width,
            multipliers=multipliers,
            num_blocks=num_blocks,
            attention=attention,
            heads=heads,
            head_dim=head_dim,
            dropout=dropout,
            out_channels=out_channels,
            num_classes=num_classes,
            groups=groups,
            norm_eps=norm_eps,
            down_padding=down_padding,
            cos_first=cos_first,
            frequency_shift=frequency_shift,
            time_scale=time_scale,
            scale_shift=scale_shift,
            residual_resampling=residual_resampling,
            dtype=dtype,
            remat=remat,
        ),
        loss=losses.hybrid if variance == "learned_range" else losses.simple,
        sampler=samplers.ddim if sampler == "ddim" else samplers.ddpm,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        augment=flip if flips else None,
        label_dropout=label_dropout,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
    )


def parameterize(process: Process, prediction: str, variance: str) -> Parameterization:
    """The parameterization with this target of the network and this variance."""
    if variance == "learned_range":
        return parameterizations.learned_range(process, PREDICTIONS[prediction](process))
    return PREDICTIONS[prediction](process, VARIANCES[variance])


def choose_data(
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str | None,
    test_split: str,
    folder_of_images: str | None,
    test_percent: int,
) -> Data:
    """The data set that these knobs choose. If they choose none, opening a split raises FileNotFoundError."""
    if folder_of_images is not None:
        labels = num_classes is not None
        return folder(folder_of_images, image_shape, test_percent, labels=labels, num_classes=num_classes)
    if name is not None:
        return tfds_images(name, image_shape, num_classes, test=test_split, fit=True)
    return Data("none", image_shape, open=_no_data, num_classes=num_classes)


def _no_data(split: str):
    raise FileNotFoundError("this run has no data: convert or train it with --data NAME or --folder-of-images FOLDER")
