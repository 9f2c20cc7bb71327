"""Swiss roll, Sohl-Dickstein et al. 2015, Table 1 and Figure 1: K 2.35, K - L_null 6.45 bits.

    ddpm-jax train sohl_dickstein_2015/swiss_roll --workdir runs/swiss_roll
    ddpm-jax evaluate runs/swiss_roll

A curve has no density in the plane: K grows without bound as beta_1 falls, by half a bit per factor of two. The paper
gives neither its beta_1 nor the noise of the data. With beta_1 = 1e-5, betas that grow geometrically to 0.7, and no
noise, the best chain of 40 steps with a diagonal variance has K = 2.24: the paper's figure needs a beta_1 of this size.
Optimizer, batch size and number of training steps are our choices too. The parameterization is that of the released
code for images (`parameterizations.shifted`).

Measured (2 CPU cores) with the paper's 16 basis functions, in 1 min 30 s with JAX 0.10.2: K 0.431 +- 0.024, K - L_null
4.582; with fixed betas 0.417 +- 0.023. With --hidden 256 --no-train-betas --num-steps 30000 --learning-rate 0.01, in
8 min 11 s with JAX 0.12.0.1: K 2.134 +- 0.021, K - L_null 6.285; with --hidden 512 2.188 +- 0.021 and 6.340. A learning
rate of 0.03 with batches of 1000 and 256 functions gave 2.009 +- 0.021.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax.data import swiss_roll
from ddpm_jax.data.encodings import points
from ddpm_jax.diffusion import gaussian, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment, TrainableSchedule
from ddpm_jax.networks import RadialBasis

CLAIMS = (
    Claim("T", 40, "Appendix D.1.1"),
    Claim("K", 2.35, "Table 1, bits"),
    Claim("K - L_null", 6.45, "Table 1, bits"),
)


def experiment(
    *,
    timesteps: int = 40,
    beta_1: float = 1e-5,
    beta_T: float = 0.7,
    train_betas: bool = True,
    noise: float = 0.0,
    hidden: int = 16,
    num_steps: int = 60_000,
    batch_size: int = 2000,
    learning_rate: float = 5e-2,
    ema_decay: float = 0.999,
    seed: int = 0,
    log_every: int = 200,
    sample_every: int = 5000,
    save_every: int = 5000,
    evaluate_every: int | None = None,
) -> Experiment:
    """Swiss roll (Sohl-Dickstein et al. 2015).

    Args:
        timesteps: Number of diffusion steps T.
        beta_1: First beta, which is never trained.
        beta_T: Last beta. Those in between grow geometrically.
        train_betas: Train beta_2 .. beta_T with the network, starting from these values.
        noise: Standard deviation of the noise added to the points, which have variance one.
        hidden: Number of radial basis functions.
        num_steps: Number of training steps, over which the learning rate falls to zero.
        batch_size: Number of points per step, over all devices.
        learning_rate: Initial learning rate of Adam.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between pictures of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim; None for never.
    """
    if timesteps < 2:
        raise ValueError(f"timesteps must be at least 2, got {timesteps}: the last step is not learned")
    if train_betas and not 0 < beta_T < 1:
        raise ValueError(f"beta_T must lie between 0 and 1 to be trained, got {beta_T}")
    betas = np.geomspace(beta_1, beta_T, timesteps)

    def schedule(shift):
        log_odds = jnp.asarray(np.log(betas / (1 - betas)), jnp.float32)
        return schedules.from_traced_betas(jax.nn.sigmoid(log_odds.at[1:].add(shift)))

    process = gaussian.process(schedules.from_betas(betas), gaussian.density)
    return Experiment(
        data=swiss_roll(noise),
        process=process,
        parameterization=parameterizations.fixed_last(process, parameterizations.shifted(process, 1)),
        network=RadialBasis(timesteps, hidden),
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
        loss=losses.negative_K,
        encoding=points(),
        trainable=TrainableSchedule(lambda: jnp.zeros(timesteps - 1), schedule) if train_betas else None,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        preview_eta=None,
        metrics=("K",),
        claims=CLAIMS,
    )
