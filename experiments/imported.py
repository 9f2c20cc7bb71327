"""A U-Net and a Gaussian process of any kind, such as `ddpm-jax convert` makes of a checkpoint of diffusers.

    ddpm-jax convert google/ddpm-cifar10-32 runs/cifar10 --weights raw --data cifar10
    ddpm-jax sample runs/cifar10

The first argument is the folder of the checkpoint, downloaded beforehand. The knobs are read from its configs. By
default they are those of that model, which has the figures of Ho et al. 2020 for CIFAR-10. It can be trained like any
other experiment: ddpm-jax train imported --workdir DIR --data cifar10.
"""

from typing import Literal

import optax

from ddpm_jax.data import Data, flip, folder, tfds_images
from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
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
    head_dim: int | None = None,
    dropout: float = 0.1,
    out_channels: int = 3,
    num_classes: int | None = None,
    groups: int = 32,
    norm_eps: float = 1e-6,
    down_padding: Literal[0, 1] = 0,
    cos_first: bool = False,
    frequency_shift: int = 1,
    timesteps: int = 1000,
    schedule: Literal["linear", "quadratic", "cosine", "sigmoid", "betas"] = "linear",
    beta_1: float = 1e-4,
    beta_T: float = 0.02,
    betas: tuple[float, ...] | None = None,
    prediction: Literal["eps", "x0", "v"] = "eps",
    variance: Literal["fixed_small", "fixed_large"] = "fixed_large",
    clip: float | None = 1.0,
    sampler: Literal["ancestral", "ddim"] = "ancestral",
    data: str | None = None,
    test_split: str = "test",
    folder_of_images: str | None = None,
    test_percent: int = 0,
    num_steps: int = 800_000,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    warmup: int = 5000,
    ema_decay: float = 0.9999,
    flips: bool = True,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
) -> Experiment:
    """A U-Net and a Gaussian process of any kind.

    Args:
        image_shape: height, width and channels.
        width: channels of the U-Net at full resolution.
        multipliers: channels of each level, in widths; each halves the resolution.
        num_blocks: residual blocks a level, on the way down.
        attention: heights, in pixels, at which there is attention.
        head_dim: channels of a head of the attention; one head by default.
        dropout: in the residual blocks.
        out_channels: of the network.
        num_classes: the network is told one of so many, or none.
        groups: of the group normalisation.
        norm_eps: of the group normalisation.
        down_padding: zeros before the first row and column where the resolution is halved.
        cos_first: the order of sines and cosines in the timestep embedding.
        frequency_shift: of the timestep embedding.
        timesteps: T, the steps of the diffusion.
        schedule: of the betas.
        beta_1: the first.
        beta_T: the last.
        betas: all of them, for the schedule betas.
        prediction: what the network predicts: the noise, the image, or v.
        variance: of the reverse process.
        clip: estimates of x_0 are held between this and minus this.
        sampler: over all T steps.
        data: a TFDS data set to train on or to measure with.
        test_split: what that data set calls its test split.
        folder_of_images: a folder or zip of pictures in its place.
        test_percent: of those pictures, for the test split.
        num_steps: training steps.
        batch_size: images a step, over all devices.
        learning_rate: of Adam, after the warm-up.
        warmup: steps over which the learning rate rises from zero.
        ema_decay: of the average of the parameters that is sampled from.
        flips: mirror each training image with probability one half.
        seed: of the parameters, the order of the data and the noise.
        log_every: steps between rows of metrics.jsonl.
        sample_every: steps between sample grids.
        save_every: steps between checkpoints.
    """
    if (betas is None) == (schedule == "betas"):
        raise ValueError("--schedule betas goes with --betas, and nothing else does")
    made = SCHEDULES[schedule](timesteps, beta_1, beta_T) if betas is None else schedules.from_betas(betas)
    process = gaussian.process(made)
    reading = PREDICTIONS[prediction](process, VARIANCES[variance])
    rate = optax.linear_schedule(0.0, learning_rate, warmup)
    return Experiment(
        data=choose_data(image_shape, num_classes, data, test_split, folder_of_images, test_percent),
        process=process,
        parameterization=reading if clip is None else parameterizations.clipped(reading, -clip, clip),
        network=UNet(
            width=width,
            multipliers=multipliers,
            num_blocks=num_blocks,
            attention=attention,
            head_dim=head_dim,
            dropout=dropout,
            out_channels=out_channels,
            num_classes=num_classes,
            groups=groups,
            norm_eps=norm_eps,
            down_padding=down_padding,
            cos_first=cos_first,
            frequency_shift=frequency_shift,
        ),
        sampler=samplers.ddim if sampler == "ddim" else samplers.ddpm,
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every),
    )


def choose_data(
    image_shape: tuple[int, int, int],
    num_classes: int | None,
    name: str | None,
    test: str,
    pictures: str | None,
    test_percent: int,
) -> Data:
    """The data set of the knobs; without one, sampling works and whatever needs images says so."""
    if pictures is not None:
        return folder(pictures, image_shape, test_percent)
    if name is not None:
        return tfds_images(name, image_shape, num_classes, test=test, fit=True)
    return Data("none", image_shape, open=_no_data, num_classes=num_classes)


def _no_data(split: str):
    raise FileNotFoundError("this run names no data: convert or train it with --data NAME or --folder-of-images FOLDER")
