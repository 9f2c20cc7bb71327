"""The likelihood of discrete data under the ODE of a run: two ways to it that agree where the model is exact."""

import dataclasses
import json
import math
import shutil

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from known import forward_variance
from mistakes import fails

from ddpm_jax.commands import main
from ddpm_jax.data import Data
from ddpm_jax.data.encodings import standardized
from ddpm_jax.diffusion import gaussian, parameterizations, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.runs import ode
from ddpm_jax.runs.chunks import kept
from ddpm_jax.sampling import Run

SCHEDULE = schedules.linear(12, 0.01, 0.4)


class OfUnitVariance(nn.Module):
    """E[noise | x_t] for data N(0, 1)."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        return jnp.sqrt(SCHEDULE.at(index + 1, x.ndim)[1]) * x


def run(**options) -> Run:
    process = gaussian.process(SCHEDULE)
    experiment = Experiment(
        data=Data("none", (2, 2, 1), open=lambda split: []),
        process=process,
        parameterization=parameterizations.eps(process, forward_variance),
        network=OfUnitVariance(),
        optimizer=optax.sgd(0.1),
        batch_size=4,
        num_steps=1,
        ema_decay=0.9,
        **options,
    )
    return Run(experiment, {}, 0)


@pytest.mark.parametrize("dequantization", ["decoder", "uniform"])
def test_exact_model_has_the_probability_of_each_level(dequantization, tmp_path):
    """-log P(level) is that of an interval of N(0, 1), 2 / 255 wide, whatever the noise that maps the ODE to levels."""
    values = np.arange(30, 230, 8, dtype=np.uint8)
    images = [{"image": np.full((2, 2, 1), value)} for value in values]
    work = ode.ode_work(run(), images, len(images), 1e-6, dequantization, 5, 0)
    nats = np.concatenate([result["nats"] for result in kept(work, tmp_path)]) / 4
    x = values / 127.5 - 1
    exact = x**2 / 2 + math.log(2 * math.pi) / 2 - math.log(2 / 255)
    np.testing.assert_allclose(nats, exact, atol=0.015)
    assert abs(np.mean(nats - exact)) < 0.003


def test_uniform_noise_needs_levels():
    with pytest.raises(ValueError, match="evenly spaced from -1 to 1: choose decoder"):
        ode.ode_work(run(encoding=standardized(0.5, 0.3)), [], 1, 1e-5, "uniform", 1, 0)


def test_run_without_estimates_at_real_t_is_refused():
    """The mean of q(x_0 | x_1, x_0) does not depend on x_1, so a predicted mean has no x_0 between t = 1 and 2."""
    made = run()
    process = made.experiment.process
    experiment = dataclasses.replace(made.experiment, parameterization=parameterizations.mean(process))
    with pytest.raises(ValueError, match="the parameterization mean has not"):
        ode.check(made._replace(experiment=experiment), 1e-5, "decoder")


def test_evaluate_nll(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished, tmp_path / "run")
    assert main(["evaluate", str(workdir), "--metrics", "nll", "--num", "3", "--tolerance", "0.01"]) == 0
    record = json.loads((workdir / "evaluation.json").read_text())[-1]
    assert record["protocol"]["dequantization"] == "decoder" and record["nll"]["calls"] > 6
    mean, _ = record["nll"]["bits_per_dim"]
    assert f"{mean:.4f}" in capsys.readouterr().out
    message = fails(capsys, "evaluate", str(workdir), "--metrics", "nll", "--tolerance", "2")
    assert "--tolerance must lie between 0 and 1, got 2" in message
