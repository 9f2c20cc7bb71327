"""Our library on JAX: everything jitted, in a process with the settings of the command line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, bound_fn, init_fn, loss_fn
from ddpm_jax.interop import unets
from ddpm_jax.networks import UNet
from ddpm_jax.runs.step_program import step_flops
from ddpm_jax.sampling import Run
from ddpm_jax.system import cpu
from ddpm_jax.training import EMA, create, make_train_step
from ddpm_jax.training.keys import keys
from sides import CHAIN_TERMS, Work


def experiment(work: Work) -> Experiment:
    """The network of the work, with random data."""
    fields = unets.to_fields(work.config)
    shape = fields.pop("image_shape")
    process = gaussian.process(schedules.linear(1000))
    return Experiment(
        data=Data("random", shape, lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process, parameterizations.fixed_large),
        network=UNet(**fields, dtype=work.dtype),
        optimizer=optax.adam(2e-4),
        batch_size=work.batch,
        num_steps=1,
        ema_decay=0.9999,
    )


class Made:
    """The side of this library."""

    def __init__(self, work: Work):
        cpu.use_fast_libraries()
        cpu.keep_memory()
        made = self._experiment = experiment(work)
        state = jax.jit(lambda key: create(init_fn(made)(key), made.optimizer))(jax.random.key(0))
        params = jax.tree.map(jnp.copy, state.params)  # a train step donates those of the state
        shape = (work.batch, *made.data.image_shape)
        pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        self._state, self._params, self._images = state, params, {"image": jnp.asarray(pixels)}
        self._one, self._all, self._times = keys(0, 1), keys(0, work.batch), jnp.arange(2, 2 + CHAIN_TERMS)
        self._x, self._index = jax.random.uniform(jax.random.key(1), shape), jnp.full(work.batch, 500)
        self._forward = jax.jit(lambda params, x, index: made.network.apply({"params": params}, x, index))
        step = make_train_step(loss_fn(made), made.optimizer, {EMA: made.ema_decay}, jax.random.key(0))
        self._step = jax.jit(step, donate_argnums=0)
        run = Run(made, params, 0)
        self._ancestral = run.sampler(work.steps)
        self._ddim = run.sampler(min(50, work.steps), eta=0.0)
        self._bound = jax.jit(bound_fn(made))
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        self.description = f"JAX {jax.__version__} on {jax.devices()[0].device_kind}"

    @property
    def flops(self) -> float:
        """FLOPs of a train step, as XLA counts them."""
        return step_flops(self._experiment, self._step.lower(self._state, self._images))

    def forward(self) -> Any:
        return self._forward(self._params, self._x, self._index)

    def train(self) -> Any:
        self._state, metrics = self._step(self._state, self._images)
        if int(self._state.step) % cpu.RETURN_EVERY == 1:  # after the first, since few steps measure the memory
            cpu.return_memory()
        return self._state, metrics

    def sample_one(self) -> Any:
        return self._ancestral(self._one)

    def sample_batch(self) -> Any:
        return self._ancestral(self._all)

    def ddim_batch(self) -> Any:
        return self._ddim(self._all)

    def bits(self) -> Any:
        return self._bound(self._params, self._all, self._images, self._times)

    def wait(self, result: Any) -> None:
        jax.block_until_ready(result)

    def peak(self) -> int | None:
        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
