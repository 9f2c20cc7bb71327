"""JAX: everything jitted, in a process with the settings of the command line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax import cpu
from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment, Run, bound_fn, init_fn, keys, loss_fn
from ddpm_jax.interop import unets
from ddpm_jax.networks import UNet
from ddpm_jax.training import create, make_train_step
from sides import CHAIN_TERMS, Side, Work


def experiment(work: Work) -> Experiment:
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


def make(work: Work) -> Side:
    cpu.quicken()
    cpu.keep_memory()
    made = experiment(work)
    state = jax.jit(lambda key: create(init_fn(made)(key), made.optimizer))(jax.random.key(0))
    params = jax.tree.map(jnp.copy, state.params)  # those of the state are donated
    shape = (work.batch, *made.data.image_shape)
    images = {"image": jnp.asarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))}
    x, index = jnp.zeros(shape), jnp.full(work.batch, 500)
    step = jax.jit(make_train_step(loss_fn(made), made.optimizer, made.ema_decay, 0), donate_argnums=0)
    forward = jax.jit(lambda params: made.network.apply({"params": params}, x, index))
    run, times = Run(made, params, 0), jnp.arange(2, 2 + CHAIN_TERMS)
    ancestral, ddim = jax.jit(run.sampler(work.steps)), jax.jit(run.sampler(min(50, work.steps), eta=0.0))
    bound = jax.jit(bound_fn(made))
    one, all_keys, wait = keys(0, 1), keys(0, work.batch), jax.block_until_ready

    def train() -> Any:
        nonlocal state
        state, metrics = step(state, images)
        return wait((state, metrics))

    return Side(
        forward=lambda: wait(forward(params)),
        train=train,
        sample_one=lambda: wait(ancestral(one)),
        sample_batch=lambda: wait(ancestral(all_keys)),
        ddim_batch=lambda: wait(ddim(all_keys)),
        bits=lambda: wait(bound(params, all_keys, images, times)),
        peak=lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        flops=float(step.lower(state, images).cost_analysis()["flops"]),
        told=f"JAX {jax.__version__} on {jax.devices()[0].device_kind}",
    )
