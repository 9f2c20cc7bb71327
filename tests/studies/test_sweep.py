"""The sweep: distances that are known, calls that are counted, and what the command writes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from mistakes import fails

from ddpm_jax.commands import main
from ddpm_jax.data import Data
from ddpm_jax.diffusion import gaussian, parameterizations, samplers, schedules
from ddpm_jax.experiment import Experiment
from ddpm_jax.sampling import Run
from ddpm_jax.studies import sweep
from ddpm_jax.training.keys import keys

PROCESS = gaussian.process(schedules.linear(1000))
MEAN, VARIANCE = 0.2, 0.04
"""Of each pixel of the data, in [-1, 1]."""


class Best(nn.Module):
    """The best eps for the data."""

    @nn.compact
    def __call__(self, x, index, label=None, train=False):
        alpha_bar, one_minus = PROCESS.schedule.at(index + 1, x.ndim)
        return jnp.sqrt(one_minus) * (x - jnp.sqrt(alpha_bar) * MEAN) / (alpha_bar * VARIANCE + one_minus)


def some(split: str) -> list[dict[str, np.ndarray]]:
    drawn = np.random.default_rng(split == "test").normal(MEAN, np.sqrt(VARIANCE), (1000, 2, 2, 1))
    return [{"image": image} for image in np.clip(127.5 * (drawn + 1), 0, 255).astype(np.uint8)]


@pytest.fixture(scope="module")
def run() -> Run:
    data = Data("normal", (2, 2, 1), open=some)
    return Run(Experiment(data, PROCESS, parameterizations.eps(PROCESS), Best(), optax.sgd(0.1), 4, 1, 0.9), {}, 0)


def test_the_distances_are_those_of_known_deviations(run):
    """DDIM of Gaussian data makes a deviation that is known; so does a solver of second order, a truer one."""
    points = sweep.sweep(run, ("ddim", "dpm++2m"), (10, 2000), "logsnr", num=512)
    assert [(point.sampler, point.steps, point.calls) for point in points] == [("ddim", 10, 10), ("dpm++2m", 10, 10)]
    first, second = points
    assert 0 < second.distance < first.distance / 4
    assert sweep.between_splits(run) < 0.01 and first.seconds > 0


def test_each_eta_is_a_row_of_the_samplers_that_have_one(run):
    """With few steps noise is worse: it shrinks the variance of this data (Song et al. 2021, Table 1)."""
    points = sweep.sweep(run, ("ddim", "heun"), (10,), num=256, etas=(0.0, 1.0))
    assert [point.label for point in points] == ["ddim, eta 0", "ddim, eta 1", "heun"]
    plain, noisy, _ = points
    assert plain.distance == sweep.sweep(run, ("ddim",), (10,), num=256)[0].distance < noisy.distance
    with pytest.raises(ValueError, match="none of the samplers heun has an eta"):
        sweep.sweep(run, ("heun",), (10,), num=256, etas=(0.5,))


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_the_calls_of_a_sampler_are_counted_right(name):
    calls = []

    def network(x, t, condition):
        jax.debug.callback(lambda: calls.append(1))
        return x

    sampler, x = samplers.SAMPLERS[name](PROCESS, parameterizations.eps(PROCESS), network), jnp.ones((1, 1))
    drawn = jax.jit(lambda *given: samplers.stretch(keys(0, 1), sampler, x, sampler.init(x), *given))
    for steps in (1, 2, 5):
        calls.clear()
        jax.block_until_ready(drawn(np.pad(samplers.times(1000, steps), (0, 5 - steps)), 0, steps))
        jax.effects_barrier()
        assert len(calls) == sweep.network_calls(name, steps)


def test_the_command_writes_a_chart_and_its_numbers(finished, tmp_path, capsys):
    out = tmp_path / "sweep.png"
    given = ("--samplers", "ddim", "heun", "--steps", "2", "4", "99", "--num", "70", "--out", str(out))
    assert main(["study", "sweep", str(finished), *given]) == 0
    printed = capsys.readouterr().out
    records = json.loads(out.with_suffix(".json").read_text())
    assert [(each["sampler"], each["steps"]) for each in records] == [
        ("ddim", 2),
        ("ddim", 4),
        ("heun", 2),
        ("heun", 4),
    ]
    assert all(f"| {each['sampler']} | {each['steps']} | {each['calls']} |" in printed for each in records)
    assert out.exists()
    features = tmp_path / "doubled.py"
    features.write_text(
        "from ddpm_jax.metrics import pixels\n\n\ndef features(images):\n    return 2 * pixels(images)\n"
    )
    again = (*given[:6], "--num", "70", "--out", str(tmp_path / "doubled.png"), "--features", str(features))
    assert main(["study", "sweep", str(finished), *again]) == 0
    four = json.loads((tmp_path / "doubled.json").read_text())
    assert four[0]["features"] == "doubled.py" and records[0]["features"] == "pixels"
    assert four[0]["distance"] == pytest.approx(4 * records[0]["distance"])  # a squared distance


def test_one_image_has_no_distance(finished, capsys):
    assert "--num must be at least 2" in fails(capsys, "study", "sweep", str(finished), "--num", "1")
