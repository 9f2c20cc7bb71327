"""Processes and parameterizations as arguments of jitted functions: the same numbers, and compiled once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, parameterizations, schedules
from ddpm_jax.diffusion.parameterizations import clipped, eps, fixed_large, fixed_last, learned, mean, shifted, v, x0

GAUSSIAN = {
    "eps": eps,
    "x0 with a variance": lambda process: x0(process, fixed_large),
    "clipped v": lambda process: clipped(process, v(process), -0.5, 0.5),
    "clipped learned mean": lambda process: clipped(process, learned(process, mean(process))),
    "learned clipped eps": lambda process: learned(process, clipped(process, eps(process))),
    "shifted with a fixed last step": lambda process: fixed_last(process, shifted(process, 9)),
    "shrinking": parameterizations.shrinking,
}
"""Parameterizations of a Gaussian process."""


def processes(family):
    """The same family with two schedules that differ in numbers only."""
    made = schedules.linear(9, 0.01, 0.3), schedules.linear(9, 0.02, 0.5)
    if family == "gaussian":
        return [gaussian.process(schedule, gaussian.discretized(17)) for schedule in made]
    return [binomial.process(schedule, 0.2) for schedule in made]


@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_a_process_is_compiled_once_for_all_its_schedules(family):
    traced = []

    @jax.jit
    def posterior(process, x_t, x_0):
        traced.append(process.family.name)
        return process.posterior(x_t, x_0, 7, 3).mode(), process.marginal(x_0, 4.5).mode()

    x_t, x_0 = jnp.array([0.0, 1.0, 1.0]), jnp.array([0.0, 1.0, 0.0])
    found = [posterior(process, x_t, x_0) for process in processes(family)]
    assert traced == [family]
    process = processes(family)[1]
    closed = jax.jit(lambda x_t, x_0: posterior.__wrapped__(process, x_t, x_0))(x_t, x_0)
    for one, other in zip(found[1], closed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("make", GAUSSIAN.values(), ids=GAUSSIAN)
def test_a_parameterization_is_compiled_once_for_all_its_schedules(make):
    """Also where it is made anew, and its result is that of the parameterization that is closed over."""
    traced = []

    @jax.jit
    def use(parameterization, output, x_t):
        traced.append(parameterization.name)
        return parameterization.x_0(output, x_t, 7), parameterization.kernel(output, x_t, 7, 3)

    channels = 4 if make(processes("gaussian")[0]).variance is None else 2
    output, x_t = jnp.sin(jnp.arange(12.0)).reshape(3, 4)[:, :channels], jnp.linspace(-1, 1, 6).reshape(3, 2)
    found = [jax.tree.leaves(use(make(process), output, x_t)) for process in processes("gaussian")]
    assert len(traced) == 1
    made = make(processes("gaussian")[1])
    closed = jax.jit(lambda output, x_t: use.__wrapped__(made, output, x_t))(output, x_t)
    for one, other in zip(found[1], jax.tree.leaves(closed), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert any(np.any(one != other) for one, other in zip(*found, strict=True))


def test_the_parameterization_of_bits_is_compiled_once_for_all_its_schedules():
    traced = []

    @jax.jit
    def use(parameterization, output):
        traced.append(parameterization.name)
        return parameterization.kernel(output, jnp.ones_like(output), 7, 3)

    for process in processes("binomial"):
        for make in (parameterizations.logits, lambda process: fixed_last(process, parameterizations.logits(process))):
            use(make(process), jnp.linspace(-1, 1, 3))
    assert traced == ["logits", "fixed_last(logits)"]


def test_what_differs_in_more_than_numbers_is_compiled_again():
    """Another variance, another range, another parameterization: other programs."""
    process, traced = processes("gaussian")[0], []

    @jax.jit
    def kernel(parameterization, output):
        traced.append(parameterization.name)
        return parameterization.kernel(output, jnp.ones_like(output), 7, 6)

    kinds = (
        eps(process),
        eps(process, fixed_large),
        clipped(process, eps(process)),
        clipped(process, eps(process), -0.1, 0.1),
        v(process),
    )
    found = {np.concatenate([np.ravel(x) for x in kernel(kind, jnp.full(2, -2.0))]).tobytes() for kind in kinds}
    assert len(traced) == len(found) == len(kinds)


def test_a_parameterization_can_be_differentiated(x64):
    """By every number of its process: what trains a schedule. Against a difference in float64."""
    process = gaussian.process(schedules.linear(9, 0.01, 0.3, np.float64))

    @jax.jit
    def loss(parameterization):
        return parameterization.kernel(jnp.full(2, 0.3), jnp.full(2, 0.5), 7, 3).mean.sum()

    def moved(step):
        table = process.schedule.alpha_bar + step * np.eye(10)[7]
        return loss(eps(gaussian.process(dataclasses.replace(process.schedule, alpha_bar=table))))

    slopes = jax.grad(loss)(eps(process))
    assert slopes.name == "eps" and slopes.process.schedule.num_steps == 9
    slope = slopes.process.schedule.alpha_bar[7]
    np.testing.assert_allclose(slope, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-6)
    assert slope != 0


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_a_likelihood_of_fewer_than_two_levels_is_refused(levels):
    with pytest.raises(ValueError, match=f"levels must be at least 2, got {levels}"):
        gaussian.discretized(levels)
