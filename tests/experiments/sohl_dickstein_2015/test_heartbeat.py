"""The heartbeat run of Sohl-Dickstein et al. 2015, below a ceiling that no run may exceed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.commands import main
from ddpm_jax.data import load
from ddpm_jax.experiment import Experiment, init_fn, loss_fn
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.likelihood import bits_per_dim
from ddpm_jax.sampling import Run
from ddpm_jax.training import EMA, create, make_train_step
from ddpm_jax.training.keys import keys


def build(**knobs) -> Experiment:
    return experiment_files.read(experiment_files.find("sohl_dickstein_2015/heartbeat"))(**knobs)


@pytest.fixture(scope="module")
def trained() -> Run:
    """The heartbeat with T = 100, trained for seconds."""
    experiment = build(timesteps=100, num_steps=2000, batch_size=1000)
    step = make_train_step(loss_fn(experiment), experiment.optimizer, {EMA: 0.99}, jax.random.key(0))
    batch = jnp.asarray(load(experiment.data.open("train"), range(1000))["image"])
    state = create(init_fn(experiment)(jax.random.key(0)), experiment.optimizer)
    optimized = {"xla_backend_optimization_level": 3}
    train = jax.jit(lambda state: jax.lax.scan(lambda s, _: step(s, {"image": batch}), state, length=2000)[0])
    return Run(experiment, train.lower(state).compile(compiler_options=optimized)(state).averages[EMA], 2000)


def test_K_is_close_below_its_ceiling(trained):
    """A chain of 100 steps with independent bits cannot exceed K = -2.973699 bits per sequence (all 3,125 states)."""
    measured = bits_per_dim(trained, trained.experiment.data.open("test"), num=1000, batch_size=1000)
    K, error = measured.K
    assert -3.2 < K < -2.973699 + 3 * error
    null = 20 * (0.2 * np.log2(0.2) + 0.8 * np.log2(0.8))
    assert measured.K_over_null[0] == pytest.approx(K - null, abs=1e-3)


def share_of_heartbeats(bits: np.ndarray) -> float:
    return float(np.mean([np.array_equal(row, np.roll(row, 5)) and row.sum() == 4 for row in bits]))


def test_samples_have_a_pulse_in_every_fifth_bin(trained):
    assert share_of_heartbeats(np.asarray(trained.sampler()(keys(0, 60))) // 255) > 0.8


def test_samples_in_fewer_steps(trained):
    assert share_of_heartbeats(np.asarray(trained.sampler(steps=50)(keys(0, 60))) // 255) > 0.6


def test_bits_have_no_ddim(trained):
    with pytest.raises(ValueError, match="a binomial process has no DDIM"):
        trained.sampler(eta=0.5)(keys(0, 2))


def test_a_run_is_trained_evaluated_and_sampled_from_the_command_line(tmp_path):
    run = str(tmp_path / "run")
    command = ["train", "sohl_dickstein_2015/heartbeat", "--workdir", run, "--timesteps", "20"]
    assert main([*command, "--num-steps", "4", "--batch-size", "8"]) == 0
    record = json.loads((tmp_path / "run" / "evaluation.json").read_text())[0]
    assert record["protocol"]["metrics"] == ["K"] and record["bpd"]["K"][0] < -2.3219
    assert main(["sample", run, "--num", "5", "--out", str(tmp_path / "samples.png")]) == 0
    assert main(["sample", run, "--num", "5", "--out", str(tmp_path / "folder")]) == 2


def test_a_chain_without_steps_is_refused():
    with pytest.raises(ValueError, match="timesteps must be at least 1, got 0"):
        build(timesteps=0)
