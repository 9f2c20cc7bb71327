"""Walks in parts: the same walk as in one part, also for samplers that remember, and noise that is not a walk's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from studies.models import shrinking_run

from ddpm_jax.diffusion import samplers
from ddpm_jax.diffusion.distributions import fold
from ddpm_jax.diffusion.types import Sampler
from ddpm_jax.sampling import prior_sample
from ddpm_jax.studies.ho_2020 import shared
from ddpm_jax.studies.walk import check_times, encoding_keys, noise_keys, walk
from ddpm_jax.training.keys import keys

T = 16


def remembering(process, parameterization, network, condition=None) -> Sampler:
    """Ancestral sampling from the mean of x_t and the state before it: wrong as a sampler, and sensitive to memory."""
    plain = samplers.ddpm(process, parameterization, network, condition)

    def step(keys, x_t, memory, t, s):
        x_s, _ = plain.step(keys, (x_t + memory) / 2, None, t, s)
        return x_s, x_t

    return Sampler(init=lambda x_T: x_T, step=step)


@pytest.fixture(scope="module", params=[samplers.ddpm, remembering])
def run(request):
    run = shrinking_run(T)
    return run._replace(experiment=dataclasses.replace(run.experiment, sampler=request.param))


def test_a_walk_in_parts_is_the_same_walk(run):
    parts, batch_keys = walk(run), keys(3, 4)
    state = parts.start(prior_sample(run.experiment, batch_keys), None)
    for t, s in ((T, 9), (9, 9), (9, 1), (1, 0)):
        state = parts.advance(batch_keys, state, t, s, None)
    np.testing.assert_array_equal(run.experiment.encoding.decode(state[0]), run.sampler()(batch_keys))


def test_samples_that_share_x_t_continue_the_walk_of_image_0(run):
    whole = run.sampler()(keys(3, 4))
    for row in shared(run, num=4, seed=3, times=(T, 7, 1)):
        np.testing.assert_array_equal(row[1], whole[0])


def test_other_noise_has_keys_that_no_walk_uses(run):
    batch_keys = keys(0, 3)
    of_walk = [fold(batch_keys, n) for n in range(T + 1)]
    of_studies = [noise_keys(run.experiment, batch_keys), encoding_keys(run.experiment, batch_keys)]
    data = np.concatenate([jax.random.key_data(each) for each in (batch_keys, *of_walk, *of_studies)])
    assert len(np.unique(data, axis=0)) == len(data) == 3 * (T + 4)


def test_times_lie_between_the_least_and_T(run):
    check_times(run, [1, T])
    check_times(run, [0, T], least=0)
    for times, least in (([0], 1), ([5, T + 1], 1), ([-1], 0)):
        with pytest.raises(ValueError, match=f"--times must be between {least} and {T}, got {times[-1]}"):
            check_times(run, times, least)


def test_all_parts_share_one_compilation(run):
    parts, batch_keys = walk(run), keys(0, 2)
    state = parts.start(jnp.zeros((2, 8, 8, 1)), None)
    for t, s in ((T, 5), (5, 3), (3, 0)):
        state = parts.advance(batch_keys, state, t, s, None)
    assert parts.advance.func._cache_size() == 1
