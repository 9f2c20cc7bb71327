"""Unconditional CIFAR-10, Ho et al. 2020, Tables 1 and 2. L_simple: IS 9.46, FID 3.17 (train), <= 3.75 bits/dim (test).

    ddpm-jax prepare cifar10
    ddpm-jax train ho_2020/cifar10 --workdir runs/cifar10

The rows of Table 2 (IS / FID), and the options that reproduce them:

    mean prediction  L, learned diagonal   7.28 / 23.69   --prediction mean --loss bound --variance learned
                     L, fixed isotropic    8.06 / 13.22   --prediction mean --loss bound
                     error of the mean     unstable       --prediction mean
    eps prediction   L, learned diagonal   unstable       --loss bound --variance learned
                     L, fixed isotropic    7.67 / 13.51   --loss bound        (<= 3.70 bits/dim)
                     L_simple              9.46 / 3.17    the defaults        (<= 3.75 bits/dim)

Paper: TPU v3-8, 800k training steps at 21 steps per second, 10.6 hours; IS and FID of 50k samples in 1000 steps with
the averaged parameters. Here: not measured. The data are 170 MB to download.

The decoder term of the bound is exact; the released code approximates the normal distribution function by a tanh, with
an error of up to 1.8e-4 (`gaussian.tanh_interval`). TensorFlow's Adam adds its epsilon of 1e-8 before the bias
correction, optax's after it.

Two defaults differ from the released code. The gradient of the whole batch is clipped by its norm, so that results do
not depend on the number of devices; the released code clips the gradients of 8 replicas with 16 images each, then
averages them (--replicas 8). Samples are rounded to bytes; the released code truncates them, which makes them half a
level darker (--truncate).
"""

from typing import Literal

import jax
import optax

from ddpm_jax import training
from ddpm_jax.data import flip, tfds_images
from ddpm_jax.data.encodings import evenly, truncated
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import UNet

CLAIMS = (
    Claim("T", 1000, "Section 4"),
    Claim("beta_1", 1e-4, "Section 4"),
    Claim("beta_T", 0.02, "Section 4"),
    Claim("batch size", 128, "Appendix B"),
    Claim("learning rate at step 2500", 1e-4, "released code: rises over 5000 steps"),
    Claim("learning rate after step 5000", 2e-4, "Appendix B"),
    Claim("training steps", 800_000, "Appendix B"),
    Claim("EMA decay", 0.9999, "Appendix B"),
    Claim("dropout", 0.1, "Appendix B"),
    Claim("flips", 1, "Appendix B"),
)
TABLE_2 = {  # (prediction, loss, variance): (IS, FID)
    ("mean", "bound", "learned"): (7.28, 23.69),
    ("mean", "bound", "fixed_large"): (8.06, 13.22),
    ("eps", "bound", "fixed_large"): (7.67, 13.51),
    ("eps", "simple", "fixed_large"): (9.46, 3.17),
}
VARIANCES = {"fixed_large": 1.1991992e-4, "fixed_small": 5.4531877e-5}
"""Variance of p(x_1 | x_2)."""
BITS = {("eps", "bound", "fixed_large"): 3.70, ("eps", "simple", "fixed_large"): 3.75}
"""Bits/dim on the test set, at most."""


def claims(prediction: str, loss: str, variance: str) -> tuple[Claim, ...]:
    """The figures that the paper states for this row of Table 2."""
    row = (prediction, loss, variance)
    count = 35_749_766 if variance == "learned" else 35_746_307
    stated = [Claim("parameters", count, "Appendix B: 35.7 million; counted from the released code"), *CLAIMS]
    stated.append(Claim("x_0 is clipped", prediction == "eps", "released code"))
    if variance in VARIANCES:
        stated.append(Claim("variance at t = 2", VARIANCES[variance], f"released code: {variance}"))
    if row in TABLE_2:
        scores = zip(("IS", "FID"), TABLE_2[row], ("Table 2", "Table 2, against the training set"), strict=True)
        stated.extend(Claim(*score) for score in scores)
    if row in BITS:
        stated.append(Claim("bits/dim", BITS[row], "Table 1, at most"))
    return tuple(stated)


def experiment(
    *,
    prediction: Literal["eps", "mean"] = "eps",
    loss: Literal["simple", "bound"] = "simple",
    variance: Literal["fixed_large", "fixed_small", "learned"] = "fixed_large",
    timesteps: int = 1000,
    width: int = 128,
    dropout: float = 0.1,
    dtype: Literal["float32", "bfloat16"] = "float32",
    remat: bool = False,
    num_steps: int = 800_000,
    batch_size: int = 128,
    learning_rate: float = 2e-4,
    warmup: int = 5000,
    ema_decay: float = 0.9999,
    power_ema: bool = False,
    flips: bool = True,
    replicas: int = 1,
    truncate: bool = False,
    seed: int = 0,
    log_every: int = 100,
    sample_every: int = 10_000,
    save_every: int = 10_000,
    evaluate_every: int | None = None,
) -> Experiment:
    """CIFAR-10 (Ho et al. 2020, Tables 1 and 2).

    Args:
        prediction: Target of the network: the noise (eps), or the mean of the posterior q(x_{t-1} | x_t, x_0) (mean).
        loss: Squared error of the prediction (simple), or a term of the variational bound at a random t (bound).
        variance: Variance of the reverse process: beta (fixed_large), beta tilde (fixed_small), or an output of the
            network (learned), which requires --loss bound.
        timesteps: Number of diffusion steps T, at least 21. The betas are those for T = 1000 times 1000 / T.
        width: Channels of the U-Net at full resolution, a multiple of 32.
        dropout: Dropout rate in the residual blocks.
        dtype: Type in which the network computes, up to its last block. The last normalization and convolution,
            parameters, loss and sampling are always float32.
        remat: Recompute the blocks in the backward pass: less memory, a third more time.
        num_steps: Number of training steps.
        batch_size: Number of images per step, over all devices.
        learning_rate: Learning rate of Adam after the warm-up.
        warmup: Number of steps over which the learning rate rises from zero.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        power_ema: Keep two more averages, from which --weights computes averages of other lengths after training. Takes
            twice the memory of the parameters, and up to 64 times as much on disk.
        flips: Mirror each training image with probability one half.
        replicas: Number of parts of the batch whose gradients are clipped separately, before they are averaged. The
            released code has 8; 1 clips the gradient of the whole batch.
        truncate: Truncate samples to bytes, as in the released code, instead of rounding them.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between grids of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim and Frechet distance; None for never.
    """
    if variance == "learned" and loss == "simple":
        raise ValueError("--variance learned requires --loss bound: the simple loss does not train a variance")
    process = gaussian.process(schedules.linear_scaled(timesteps))
    fixed = parameterizations.fixed_small if variance == "fixed_small" else parameterizations.fixed_large
    parameterization = {"eps": parameterizations.eps, "mean": parameterizations.mean}[prediction](process, fixed)
    if variance == "learned":
        parameterization = parameterizations.learned(process, parameterization)
    if prediction == "eps":  # as in the released code, x_0 is not clipped where the network predicts the mean
        parameterization = parameterizations.clipped(process, parameterization)
    out_channels = 6 if variance == "learned" else 3
    rate = training.warmup(learning_rate, warmup)
    return Experiment(
        data=tfds_images("cifar10", (32, 32, 3), cost="170 MB to download, as much again on disk"),
        process=process,
        parameterization=parameterization,
        network=UNet(
            width,
            dropout=dropout,
            out_channels=out_channels,
            groups=min(32, width // 2),
            dtype=dtype,
            remat=remat,
        ),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        gradient=training.clip_in_parts(replicas) if replicas > 1 else jax.value_and_grad,
        encoding=truncated() if truncate else evenly(),
        loss={"simple": losses.simple, "bound": losses.variational}[loss],
        augment=flip if flips else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        power_averages=training.POWER_LENGTHS if power_ema else (),
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        claims=claims(prediction, loss, variance),
    )
