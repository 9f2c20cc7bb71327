"""The table of bounds: each cell is the bound that `evaluate` measures, and the order is that of the papers."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from mistakes import fails
from studies.models import Shrinking, shrinking_run

from ddpm_jax.commands import main
from ddpm_jax.diffusion import parameterizations, samplers
from ddpm_jax.diffusion.parameterizations import with_variance
from ddpm_jax.experiment import with_parameterization
from ddpm_jax.runs.likelihood import bits_per_dim
from ddpm_jax.runs.statistics import Statistics, terms_work
from ddpm_jax.studies.bounds import bounds, curves, table


@pytest.fixture(scope="module")
def found():
    """A run, statistics of its training images, and the points of 40 test images."""
    run = shrinking_run()
    source = run.experiment.data.open("train")
    [terms] = terms_work(run, source, 60, 60).compute([0])
    names = Statistics._fields
    statistics = Statistics(*(np.append(0.0, terms[name].mean(axis=0)) for name in names))
    return run, statistics, bounds(run, statistics, (1, 4, 16, 99), num=40)


def test_every_cell_is_the_bound_that_is_measured(found):
    run, statistics, points = found
    assert len(points) == 3 * 4 * 3
    source = run.experiment.data.open("test")
    for point in points[4::13]:  # another spacing and number of steps for each variance
        spacings = dict(samplers.SPACINGS) | {"optimal": samplers.optimal(statistics.costs(run, point.variance))}
        variance = statistics.variance(point.variance)
        made = with_parameterization(run.experiment, with_variance(run.experiment.parameterization, variance))
        times = spacings[point.spacing](run.experiment.process.schedule, point.steps)
        measured = bits_per_dim(run._replace(experiment=made), source, num=40, batch_size=40, visits=times)
        np.testing.assert_allclose(point.bits, measured.total, rtol=1e-4)


class Ranging(Shrinking):
    """Also outputs a share of log beta in the log variance, which depends on x_t."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.concatenate([super().__call__(x, index), 0.5 * x], axis=-1)


def test_a_learned_range_has_its_own_rows(found):
    plain, statistics, _ = found
    learned = parameterizations.learned_range(plain.experiment.process, plain.experiment.parameterization)
    network = Ranging(tuple(map(float, plain.schedule.alpha_bar)))
    made = dataclasses.replace(plain.experiment, parameterization=learned, network=network)
    run = plain._replace(experiment=made)
    points = bounds(run, statistics, (4, 16), num=20)
    assert [point.variance for point in points[24:]] == 6 * ["learned_range"]
    for point, fixed in zip(points[:24], bounds(plain, statistics, (4, 16), num=20), strict=True):
        np.testing.assert_allclose(point.bits, fixed.bits, rtol=1e-5)
    for point in points[24::3]:
        times = samplers.SPACINGS[point.spacing](run.schedule, point.steps)
        measured = bits_per_dim(run, made.data.open("test"), num=20, batch_size=20, visits=times)
        np.testing.assert_allclose(point.bits, measured.total, rtol=1e-4)


def test_the_order_is_that_of_the_papers(found):
    """Bao et al. 2022, Table 1: analytic below beta below beta tilde, and optimal times below others."""
    bits = {(point.variance, point.spacing, point.steps): point.bits[0] for point in found[2]}
    assert bits["analytic", "linspace", 4] < bits["fixed_large", "linspace", 4] < bits["fixed_small", "linspace", 4]
    assert all(bits[name, "optimal", 4] < bits[name, "linspace", 4] for name in ("analytic", "fixed_large"))


def test_the_bound_of_the_training_images_is_least_at_the_optimal_times(found):
    """The same images and the same noise: no spacing is better, and the costs add up to the measured bound."""
    run, statistics, _ = found
    source, costs, bits = run.experiment.data.open("train"), statistics.costs(run, "fixed_small"), {}
    spacings = {name: samplers.SPACINGS[name] for name in ("even", "linspace")}
    for name, spacing in (spacings | {"optimal": samplers.optimal(costs)}).items():
        times = spacing(run.experiment.process.schedule, 6)
        measured = bits_per_dim(run, source, num=60, batch_size=60, visits=times)
        bits[name] = measured.chain[0] + measured.decoder[0]
        np.testing.assert_allclose(bits[name], samplers.path_cost(costs, times) / np.log(2), rtol=1e-4)
        assert measured.times == 5 and measured.rate is None
    assert all(bits["optimal"] < other for name, other in bits.items() if name != "optimal")


def test_the_table_has_a_row_for_each_spacing_and_variance(found):
    rows = table(found[2]).split("\n")
    assert rows[0] == "| variance | spacing | K = 1 | K = 4 | K = 16 |" and len(rows) == 2 + 12
    assert set(curves(found[2], ("optimal",))) == {
        f"{name} optimal" for name in ("fixed_small", "fixed_large", "analytic")
    }


def test_the_command_writes_table_and_records(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["study", "bounds", str(run), "--steps", "2", "50", "--num", "4"]) == 0
    assert "| analytic | optimal |" in capsys.readouterr().out
    [records] = (run / "studies").glob("bounds*.json")
    assert {each["steps"] for each in json.loads(records.read_text())} == {2, 50}
    message = fails(capsys, "study", "bounds", str(run), "--steps", "60", "--out", str(tmp_path / "x.png"))
    assert "--steps 60: this run has 50 steps" in message
