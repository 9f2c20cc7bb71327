"""Your own pictures: a folder or zip of photographs, drawings or scans, by the method of Ho et al. 2020.

    ddpm-jax train pictures --path PICTURES --size 64 --workdir runs/mine

docs/own_pictures.md goes through it. The method: linear betas, T = 1000, eps prediction, L_simple, fixed_large. The
U-Net follows from the size; at 32 and 256 it is that of Ho et al. 2020 (CIFAR-10 and CelebA-HQ).
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

import optax

from ddpm_jax import training
from ddpm_jax.data import Data, flip, folder
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Every, Experiment
from ddpm_jax.networks import UNet

Choice = TypeVar("Choice")
MULTIPLIERS = {16: (1, 2, 2), 64: (1, 2, 2, 2), 128: (1, 1, 2, 2, 4), 256: (1, 1, 2, 2, 4, 4)}
"""The channels of the U-Net's levels, divided by its width, for sizes up to the key."""
BATCHES = {64: 64, 128: 32, 256: 16}
"""The default number of pictures per step for sizes up to the key, so that a step has about the same cost."""


def experiment(
    *,
    path: str | None = None,
    size: int = 64,
    grey: bool = False,
    labels: bool = False,
    num_classes: int | None = None,
    crop: Literal["centre", "random"] = "centre",
    background: str = "white",
    on_bad_picture: Literal["stop", "skip"] = "stop",
    test_percent: int = 5,
    flips: bool = True,
    timesteps: int = 1000,
    prediction: Literal["eps", "v"] = "eps",
    width: int = 128,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    num_steps: int = 200_000,
    batch_size: int | None = None,
    learning_rate: float = 2e-4,
    warmup: int = 1000,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    snr_gamma: float | None = None,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 2000,
    save_every: int = 2000,
    evaluate_every: int | None = None,
) -> Experiment:
    """A U-Net for a folder or zip of pictures.

    Args:
        path: Folder, with its subfolders, or zip of the pictures.
        size: Height and width in pixels to which the pictures are cropped and resized, from 8 to 256. A multiple of 4
            up to 16, of 8 up to 64, of 16 up to 128, and of 32 beyond.
        grey: Convert the pictures to grey.
        labels: Take the class of each picture from its first-level subfolder, and train a network that is given the
            class. A tenth of the training examples have none, so that the network also samples without a class.
        num_classes: Number of classes for --labels. Default: the number of subfolders, which is kept with the run.
        crop: Part of each picture that is kept: its centre, or a random part, which is the same in each epoch.
        background: Colour behind the transparent parts of pictures, such as white or "#808080".
        on_bad_picture: At a picture that cannot be decoded: stop with an error that names it, or skip it.
        test_percent: Percentage of the pictures, chosen by their names, that is held out for `ddpm-jax evaluate`.
        flips: Mirror each training picture with probability one half. Not for pictures of text.
        timesteps: Number of diffusion steps T, at least 21. The betas are those for T = 1000 times 1000 / T.
        prediction: Target of the network: the noise (eps), or v (Salimans & Ho 2022), with which short runs have truer
            colours (docs/own_pictures.md).
        width: Channels of the U-Net at full resolution, a multiple of 32.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes. Parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        num_steps: Number of training steps.
        batch_size: Number of pictures per step, over all devices. Default: 64 for sizes up to 64, 32 for sizes up to
            128, and 16 beyond.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup: Number of steps over which the learning rate rises from zero.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling. The decay starts lower
            and rises to this value.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        snr_gamma: Weight the squared error of the noise by min(snr, snr_gamma) / snr at a signal-to-noise ratio of snr
            (Hang et al. 2023, who use 5). Default: L_simple, as in Ho et al. 2020.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    if num_classes is not None and not labels:
        raise ValueError(f"--num-classes {num_classes} applies with --labels: add it, or leave out --num-classes")
    if snr_gamma is not None and snr_gamma <= 0:
        raise ValueError(f"--snr-gamma must be above 0, got {snr_gamma}: leave it out for no weight")
    process = gaussian.process(schedules.linear_scaled(timesteps))
    target = {"eps": parameterizations.eps, "v": parameterizations.v}[prediction]
    multipliers, attention = levels(size)
    shape = (size, size, 1 if grey else 3)
    data = Data("none", shape, open=_no_data, num_classes=num_classes if labels else None)
    if path is not None:
        data = folder(path, shape, test_percent, labels, num_classes, crop, background, on_bad_picture)
    elif labels and num_classes is None:
        raise ValueError("--labels needs --path, the folder or zip whose subfolders are the classes, or --num-classes")
    return Experiment(
        data=data,
        process=process,
        parameterization=parameterizations.clipped(process, target(process, parameterizations.fixed_large)),
        network=UNet(
            width=width,
            multipliers=multipliers,
            attention=attention,
            dropout=dropout,
            num_classes=data.num_classes,
            groups=min(32, width // 4),
            dtype=dtype,
            remat=remat,
        ),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(training.warmup(learning_rate, warmup))),
        loss=losses.simple if snr_gamma is None else losses.min_snr(snr_gamma),
        augment=flip if flips else None,
        label_dropout=0.1 if labels else 0.0,
        batch_size=up_to(size, BATCHES) if batch_size is None else batch_size,
        num_steps=num_steps,
        ema_decay=training.ema_ramp(ema_decay),
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        metrics=("bpd", "memorisation"),
    )


def levels(size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The multipliers of the U-Net, and the resolution of its attention, the largest up to 16."""
    if not 8 <= size <= 256:
        raise ValueError(f"--size must be 8 to 256, got {size}: docs/own_pictures.md has an experiment to start from")
    multipliers = up_to(size, MULTIPLIERS)
    halvings = len(multipliers) - 1
    if size % 2**halvings:
        below = size >> halvings << halvings
        raise ValueError(f"--size {size} cannot be halved {halvings} times: choose {below} or {below + 2**halvings}")
    return multipliers, (next(size >> level for level in range(halvings + 1) if size >> level <= 16),)


def up_to(size: int, choices: Mapping[int, Choice]) -> Choice:
    """The choice for the smallest key that is not below the size."""
    return choices[min(limit for limit in choices if size <= limit)]


def _no_data(split: str):
    """Raises FileNotFoundError: the run has no pictures."""
    raise FileNotFoundError("this run has no pictures: give their folder or zip with --path")
