"""Schedulers of diffusers: the knobs of an experiment that mean the same, and what has no scheduler."""

import dataclasses

import jax
import numpy as np
import pytest

from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.experiment import shapes
from ddpm_jax.interop import schedulers, unets
from ddpm_jax.networks import UNet
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.convert import scheduler_knobs

MADE = experiment_files.read(experiment_files.find("imported"))
BETAS = tuple(np.geomspace(1e-3, 0.3, 40).tolist())


@pytest.mark.parametrize(
    "knobs",
    [
        {"prediction": "eps", "variance": "fixed_large", "clip": 1.0},
        {"prediction": "eps", "variance": "fixed_small", "clip": None, "timesteps": 60, "beta_1": 1e-3, "beta_T": 0.3},
        {"prediction": "x0", "variance": "fixed_large", "clip": 0.5, "schedule": "cosine"},
        {
            "prediction": "v",
            "variance": "fixed_small",
            "clip": 1.0,
            "schedule": "quadratic",
            "beta_1": 0.00085,
            "beta_T": 0.012,
        },
        {"prediction": "v", "variance": "fixed_large", "clip": None, "schedule": "sigmoid", "beta_T": 0.05},
        {"prediction": "x0", "variance": "learned_range", "clip": 1.0, "schedule": "cosine", "timesteps": 50},
    ],
    ids=str,
)
def test_schedule_and_parameterization_are_known_by_their_names(knobs):
    found = scheduler_knobs(MADE(**knobs))
    assert {name: found[name] for name in knobs} == knobs
    assert schedulers.to_knobs(schedulers.to_config(found)) == found


def test_fewer_steps_are_spaced_as_diffusers_spaces_them():
    """Lin et al. 2023, Table 2: ten of 1000 steps with the spacing "trailing" are 1000, 900, .. 100, counted from 1."""
    assert samplers.times(1000, 10).tolist() == [*range(1000, 0, -100), 0]
    config = schedulers.to_config(scheduler_knobs(MADE()))
    assert config["timestep_spacing"] == "trailing" and schedulers.ignored(config) == ""


@pytest.mark.parametrize(
    "entries, ignored",
    [
        ({}, "timestep_spacing leading"),
        ({"timestep_spacing": "leading", "steps_offset": 1}, "timestep_spacing leading with steps_offset 1"),
        ({"timestep_spacing": "linspace", "steps_offset": 1}, "timestep_spacing linspace"),
        ({"timestep_spacing": "trailing", "steps_offset": 1}, ""),
    ],
)
def test_a_spacing_that_is_not_followed_is_named(entries, ignored):
    """diffusers adds the offset to "leading" only, which is its default."""
    assert schedulers.ignored(entries) == ignored


def test_a_learned_variance_has_a_network_of_twice_the_channels_and_no_ddim_scheduler():
    network = MADE(variance="learned_range", out_channels=6, scale_shift=True).network
    fields = {name: getattr(network, name) for name in UNet.__dataclass_fields__}
    config = unets.to_config(fields, (32, 32, 3))
    assert config["out_channels"] == 6 and config["resnet_time_scale_shift"] == "scale_shift"
    found = unets.to_fields(config)
    assert {name: found[name] for name in ("out_channels", "scale_shift")} == {"out_channels": 6, "scale_shift": True}
    with pytest.raises(ValueError, match=r"variance learned_range, .*sampler ddim"):
        scheduler_knobs(MADE(variance="learned_range", sampler="ddim"))


def test_a_schedule_that_diffusers_lacks_is_known_by_its_betas():
    found = scheduler_knobs(MADE(schedule="betas", betas=BETAS))
    assert found["schedule"] == "betas"
    np.testing.assert_allclose(found["betas"], BETAS, rtol=1e-5)


def test_what_diffusers_has_no_scheduler_for_is_refused():
    process = gaussian.process(schedules.linear(100))
    experiment = MADE()
    others = (
        parameterizations.mean(process),
        parameterizations.eps(process, lambda schedule, t, s, ndim: 2 * schedule.between(s, t, ndim)[1]),
        parameterizations.clipped(process, parameterizations.eps(process), -1.0, 0.5),
        parameterizations.learned(process, parameterizations.eps(process)),
    )
    for parameterization in others:
        network = UNet(out_channels=6) if parameterization is others[-1] else experiment.network
        with pytest.raises(ValueError, match="no scheduler"):
            scheduler_knobs(
                dataclasses.replace(experiment, process=process, parameterization=parameterization, network=network)
            )


def test_the_paper_s_model_is_the_default():
    """google/ddpm-cifar10-32 has the parameters of Ho et al. 2020, Appendix B."""
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes(MADE()))) == 35_746_307
