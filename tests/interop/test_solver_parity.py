"""Our solvers take the steps of diffusers' schedulers, where the definitions coincide.

They do not for the third order of DPM-Solver++, whose second difference has half of its weight in diffusers (see
`samplers.multistep`); for its singlestep solver, which spends its second call on the next of the times; and for PLMS,
whose first step is repeated in diffusers.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from known import best_eps, keys

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import fold

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

PROCESS = gaussian.process(schedules.linear(1000))
NETWORK = best_eps(PROCESS.schedule, 0.25, mean=0.2)
SHAPE, COUNT = (3, 2, 2, 1), 10
X_T = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
TIMES = samplers.linspace(PROCESS.schedule, COUNT)
EVEN_SIGMAS = {"timestep_spacing": "linspace"}


def ours(name, times=TIMES, **numbers):
    sampler = samplers.SAMPLERS[name](PROCESS, parameterizations.eps(PROCESS), NETWORK, **numbers)
    return np.asarray(jax.jit(partial(samplers.sample, keys(3), sampler))(X_T, times))


def theirs(scheduler, scale=1.0):
    """The result of their scheduler with our network, started at `scale` x_T; its noise is that of our sampler."""
    scheduler.set_timesteps(COUNT)
    x = torch.tensor(np.asarray(X_T)) * float(scale)
    for number, index in enumerate(scheduler.timesteps.tolist(), start=1):
        scaled = np.asarray(scheduler.scale_model_input(x, index))
        output = torch.tensor(np.asarray(NETWORK(jnp.asarray(scaled), jnp.float32(index + 1), None)))
        drawn = jax.vmap(lambda key: jax.random.normal(key, SHAPE[1:]))(fold(keys(3), number))
        noise = {"variance_noise": torch.tensor(np.asarray(drawn))} if "DPM" in type(scheduler).__name__ else {}
        x = scheduler.step(output, index, x, **noise).prev_sample
    return x.numpy()


@pytest.mark.parametrize(("name", "kind"), [("dpm++2m", "dpmsolver++"), ("dpm++2m-sde", "sde-dpmsolver++")])
def test_dpm_solver_of_second_order(name, kind):
    options = {"algorithm_type": kind, "solver_order": 2, "final_sigmas_type": "zero", "lower_order_final": False}
    scheduler = diffusers.DPMSolverMultistepScheduler(1000, 1e-4, 0.02, "linear", **options, **EVEN_SIGMAS)
    scheduler.set_timesteps(COUNT)
    times = np.append(scheduler.timesteps.numpy() + 1, 0)
    np.testing.assert_allclose(ours(name, times), theirs(scheduler), atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("heun", "HeunDiscreteScheduler"), ("ddim", "EulerDiscreteScheduler")])
def test_solvers_of_the_noise_level(name, kind):
    """Their state is x / alpha. Euler's method there is DDIM."""
    scheduler = getattr(diffusers, kind)(1000, 1e-4, 0.02, "linear", **EVEN_SIGMAS)
    np.testing.assert_allclose(ours(name), theirs(scheduler, 1 / np.sqrt(PROCESS.schedule.alpha_bar[-1])), atol=1e-4)


@pytest.mark.parametrize("name", ["leading", "linspace", "trailing"])
def test_spacings(name):
    scheduler = diffusers.DDIMScheduler(timestep_spacing=name)
    spacing = samplers.SPACINGS["even" if name == "trailing" else name]
    for count in (4, 10, 50):
        scheduler.set_timesteps(count)
        np.testing.assert_array_equal(np.append(scheduler.timesteps.numpy() + 1, 0), spacing(PROCESS.schedule, count))
