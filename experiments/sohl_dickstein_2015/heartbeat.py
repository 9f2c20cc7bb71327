"""Binary heartbeat, Sohl-Dickstein et al. 2015, Table 1 and Figure 2: K -2.414, K - L_null 12.024 bits per sequence.

    ddpm-jax train sohl_dickstein_2015/heartbeat --workdir runs/heartbeat
    ddpm-jax evaluate runs/heartbeat

The log-likelihood of the data is log2(1/5) = -2.3219 bits per sequence. A reverse chain of 2000 steps with independent
bits cannot exceed K = -2.3683 (-2.9737 for T = 100), computed by enumerating all states. The paper gives neither batch
size nor number of training steps, and uses an optimizer of its own. Our choices: Adam with a learning rate that falls
to zero, and a batch with about one example per timestep.

Measured (2 CPU cores, JAX 0.10.2): 5 min 36 s; K -2.3853 +- 0.0011, K - L_null 12.0533, by
`ddpm-jax evaluate runs/heartbeat --batch-size 2000`.
"""

import optax

from ddpm_jax.data import heartbeat
from ddpm_jax.diffusion import binomial, losses, parameterizations, schedules
from ddpm_jax.experiment import Claim, Every, Experiment
from ddpm_jax.networks import SigmoidMLP

CLAIMS = (
    Claim("T", 2000, "Appendix D.1.2"),
    Claim("parameters", 2_046_150, "Appendix D.1.2: 20 inputs, three layers of 50, 2000 readouts"),
    Claim("K", -2.414, "Table 1, bits per sequence"),
    Claim("K - L_null", 12.024, "Table 1, bits per sequence"),
)


def experiment(
    *,
    timesteps: int = 2000,
    rate: float = 0.2,
    num_steps: int = 20_000,
    batch_size: int = 2000,
    learning_rate: float = 1e-2,
    ema_decay: float = 0.999,
    seed: int = 0,
    log_every: int = 200,
    sample_every: int = 5000,
    save_every: int = 5000,
    evaluate_every: int | None = None,
) -> Experiment:
    """Binary heartbeat (Sohl-Dickstein et al. 2015).

    Args:
        timesteps: Number of diffusion steps T.
        rate: Base rate of the forward process: the probability of a one under its prior. The paper's figures are for
            0.2, the mean of the data.
        num_steps: Number of training steps, over which the learning rate falls to zero.
        batch_size: Number of sequences per step, over all devices.
        learning_rate: Initial learning rate of Adam.
        ema_decay: Decay of the moving average of the parameters, which is used for sampling.
        seed: Seed of the parameters, the order of the data and the noise.
        log_every: Number of steps between rows of metrics.jsonl.
        sample_every: Number of steps between pictures of samples.
        save_every: Number of steps between checkpoints.
        evaluate_every: Number of steps between estimates of bits/dim; None for never.
    """
    process = binomial.process(schedules.steady(timesteps), rate)
    return Experiment(
        data=heartbeat(),
        process=process,
        parameterization=parameterizations.fixed_last(process, parameterizations.logits(process)),
        network=SigmoidMLP(timesteps),
        optimizer=optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
        loss=losses.negative_K,
        batch_size=batch_size,
        num_steps=num_steps,
        ema_decay=ema_decay,
        seed=seed,
        every=Every(log=log_every, sample=sample_every, save=save_every, evaluate=evaluate_every),
        preview_eta=None,
        metrics=("K",),
        claims=CLAIMS,
    )
