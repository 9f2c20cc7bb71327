"""The warm-up of the learning rate."""

import optax


def warmup(rate: float, steps: int) -> optax.Schedule:
    """The learning rate that rises linearly from 0 to `rate` over `steps` steps and then stays.

        rate(step) = rate min(1, step / steps)

    As in the released code of Ho et al. 2020, where `steps` is 5000. With `steps` 0 it is `rate` from the first step.
    Raises ValueError for a negative number of steps.
    """
    if steps < 0:
        raise ValueError(f"warmup must be at least 0 steps, got {steps}")
    return optax.linear_schedule(0.0, rate, steps) if steps else optax.constant_schedule(rate)
