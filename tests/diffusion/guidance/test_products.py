"""Chains multiplied by a second distribution: where the product is known, and where the published method misses it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.diffusion import binomial, gaussian, guidance, parameterizations, samplers, schedules
from ddpm_jax.diffusion.distributions import Bernoulli, Normal

STEPS = 1000


def published() -> schedules.Schedule:
    """The betas of 2015's released code: 1 / linspace(T, 2, T), squeezed between 1e-6 (0.001 at first) and 1 - 1e-5."""
    least = np.full(STEPS, 1e-6)
    least[0] += 1e-3
    return schedules.from_betas(least + (1 - least - 1e-5) / np.linspace(STEPS, 2, STEPS), np.float64)


def end_of(schedule, factor) -> tuple[float, float]:
    """Mean and variance at x_0 of the perturbed chain for data N(0, 1), whose reverse steps are forward ones: exactly.

    Each step is affine in x_t: its values at 0 and 1 determine it.
    """
    process = gaussian.process(schedule, gaussian.density)
    kernel = guidance.multiplied(lambda x_t, t, s: process.transition(x_t, s, t), factor)
    start = guidance.multiplied(lambda x_t, t, s: Normal(jnp.zeros(1), jnp.ones(1)), factor)(jnp.zeros(1), STEPS, STEPS)

    def step(carry, t):
        mean, variance = carry
        at_0, at_1 = (kernel(jnp.full(1, x), t, t - 1) for x in (0.0, 1.0))
        slope = at_1.mean - at_0.mean
        return (at_0.mean + slope * mean, slope**2 * variance + at_0.variance), None

    (mean, variance), _ = jax.lax.scan(step, tuple(start), jnp.arange(STEPS, 0, -1))
    return float(mean[0]), float(variance[0])


# r = N(1, tau^2): its variance, where it acts, and the end of the chain by an independent recursion in float64
ENDS = [
    (1.0, "constant", (0.666494, 0.333667)),
    (0.25, "constant", (0.888857, 0.111393)),
    (1.0, "annealed", (0.462128, 0.432193)),
    (0.25, "annealed", (0.849419, 0.125077)),
]


@pytest.mark.parametrize("tau2, kind, expected", ENDS)
def test_the_published_method_ends_at_its_own_distribution(x64, tau2, kind, expected):
    r = Normal(jnp.ones(1), jnp.full(1, tau2))
    factor = guidance.annealed(r, STEPS) if kind == "annealed" else lambda s: r
    np.testing.assert_allclose(end_of(published(), factor), expected, atol=2e-4)


def test_that_is_not_the_posterior_but_near_that_of_the_square(x64):
    """p r is N(0.5, 0.5) here, p r^2 is N(2/3, 1/3)."""
    mean, variance = end_of(published(), lambda s: Normal(jnp.ones(1), jnp.ones(1)))
    assert abs(mean - 2 / 3) < 1e-3 and abs(variance - 1 / 3) < 1e-3
    exact = exact_end()
    np.testing.assert_allclose(exact, (0.5, 0.5), atol=1e-6)


def exact_end() -> tuple[float, float]:
    """With r_s(x_s) = E[r(x_0) | x_s], which is a Gaussian in x_s here, the chain ends at the posterior itself."""
    schedule = published()

    def factor(s):
        alpha_bar, one_minus = schedule.at(s, 1)
        # x_0 given x_s is N(sqrt(alpha_bar) x_s, 1 - alpha_bar), so E[r] is a Gaussian around it, wider by 1
        return Normal(1 / jnp.sqrt(alpha_bar), (1 + one_minus) / alpha_bar)

    # the kernel of the product is p(x_s | x_t) r_s(x_s) / r_t(x_t): the same shape in x_s
    return end_of(schedule, factor)


def test_a_weak_tilt_is_the_product(x64):
    """Where log r is linear the small-perturbation step is exact; where r is wide it is nearly so."""
    kernel = lambda x_t, t, s: Normal(x_t, jnp.full_like(x_t, 0.01))  # noqa: E731
    wide = Normal(jnp.ones(3), jnp.full(3, 50.0))
    tilted = guidance.tilted(kernel, lambda x, s: (wide.mean - x) / wide.variance)
    product = guidance.multiplied(kernel, lambda s: wide)
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(tilted(x, 2, 1).mean, product(x, 2, 1).mean, atol=1e-6)


def of(mean, variance):
    return Normal(jnp.full(3, mean), jnp.full(3, variance))


def test_the_product_of_gaussians_is_normalized(x64):
    """log p + log r - log product is the same at every x."""
    kernel = guidance.multiplied(lambda x_t, t, s: of(-0.5, 0.3), lambda s: of(2.0, 0.7))
    product, x = kernel(jnp.zeros(3), 2, 1), jnp.array([-1.0, 0.3, 2.0])
    constant = of(-0.5, 0.3).log_prob(x) + of(2.0, 0.7).log_prob(x) - product.log_prob(x)
    np.testing.assert_allclose(constant, jnp.full(3, constant[0]), rtol=1e-12)


@pytest.mark.parametrize(
    "kernel, factor, expected",
    [
        (of(-0.5, 0.0), of(2.0, 0.7), (-0.5, 0.0)),
        (of(-0.5, 0.3), of(2.0, np.inf), (-0.5, 0.3)),
        (of(-0.5, 0.3), of(2.0, 0.0), (2.0, 0.0)),
        (of(-0.5, 0.0), of(2.0, np.inf), (-0.5, 0.0)),
        (of(-0.5, 0.0), of(2.0, 0.0), (-0.5, 0.0)),
        (of(-0.5, 1e-30), of(2.0, 1e30), (-0.5, 1e-30)),
    ],
    ids=["kernel at a point", "flat factor", "factor at a point", "point and flat", "both at points", "far apart"],
)
def test_products_with_points_and_with_flat_factors(kernel, factor, expected):
    product = guidance.multiplied(lambda x_t, t, s: kernel, lambda s: factor)(jnp.zeros(3), 2, 1)
    for found, number in zip(product, expected, strict=True):
        np.testing.assert_allclose(found, np.full(3, number, np.float32), rtol=1e-6)


@pytest.mark.parametrize("variance", [0.0, 0.7])
def test_an_annealed_factor_begins_flat_and_ends_as_itself(variance):
    """Also one at a point, whose variance is 0 until it is raised to the power 0."""
    factor = guidance.annealed(of(2.0, variance), 10)
    assert np.isposinf(factor(10).variance).all() and (factor(10).mean == 2).all()
    np.testing.assert_allclose(factor(0).variance, np.full(3, variance), rtol=1e-6)
    kernel = guidance.multiplied(lambda x_t, t, s: of(-0.5, 0.3), factor)
    np.testing.assert_allclose(kernel(jnp.zeros(3), 10, 10), of(-0.5, 0.3), rtol=1e-6)


def test_a_deterministic_chain_is_not_moved_by_a_factor():
    """DDIM without noise, T = 5, in every step and at the end."""
    process = gaussian.process(schedules.linear(5, 0.05, 0.5), gaussian.density)
    eps, network = parameterizations.eps(process), lambda x_t, t, condition: 0.1 * x_t

    def bridge(x_t, t, s):
        return process.posterior(x_t, eps.x_0(network(x_t, t, None), x_t, t), t, s, 0.0)

    moved = samplers.ancestral(guidance.multiplied(bridge, lambda s: Normal(jnp.ones((4, 2)), jnp.ones((4, 2)))))
    keys, x_T = jax.random.split(jax.random.key(0), 4), jax.random.normal(jax.random.key(1), (4, 2))
    found, plain = (
        jax.jit(lambda x_T, kind=kind: samplers.sample(keys, kind, x_T, samplers.times(5, 5)))(x_T)
        for kind in (moved, samplers.ddim(process, eps, network))
    )
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_bits_are_multiplied_exactly(x64):
    process = binomial.process(schedules.steady(5, np.float64), 0.3)
    parameterization = parameterizations.logits(process)
    kernel = samplers.reverse(parameterization, lambda x_t, t, condition: jnp.sin(x_t + t))
    r = np.array([0.2, 0.9])
    tilted = guidance.tilted(kernel, lambda x, s: jnp.full_like(x, np.log(r[1] / r[0])))
    x_t = jnp.array([0.0, 1.0])
    plain, product = kernel(x_t, 3, 2), tilted(x_t, 3, 2)
    joint = np.stack([plain.zero * r[0], plain.one * r[1]])
    np.testing.assert_allclose(product.one, joint[1] / joint.sum(axis=0), rtol=1e-12)
    assert isinstance(product, Bernoulli)


@pytest.mark.parametrize("noised", [False, True])
def test_inpainting_keeps_what_is_known_and_fills_what_follows_from_it(noised):
    """Two coordinates that are always equal: the one that is known decides the other."""
    process = gaussian.process(schedules.linear(200, 1e-3, 0.1), gaussian.density)

    def network(x_t, t, condition):
        """The best eps for x = (z, z), z ~ N(0, 1)."""
        alpha_bar, one_minus = process.schedule.at(t, x_t.ndim)
        z = jnp.sqrt(alpha_bar) * x_t.sum(axis=-1, keepdims=True) / (2 * alpha_bar + one_minus)
        return (x_t - jnp.sqrt(alpha_bar) * z) / jnp.sqrt(one_minus)

    keys = jax.random.split(jax.random.key(0), 500)
    sampler = samplers.ddpm(process, parameterizations.eps(process), network)
    known, mask = jnp.full((500, 2), 1.3), jnp.array([True, False])
    held = guidance.inpaint(sampler, process, known, mask, noised)
    x_T = jax.random.normal(jax.random.key(1), (500, 2))
    x_0 = jax.jit(partial(samplers.sample, sampler=held))(keys, x_T=x_T, times=samplers.times(200, 200))
    np.testing.assert_array_equal(x_0[:, 0], np.float32(1.3))
    assert np.abs(x_0[:, 1] - 1.3).mean() < 0.3
