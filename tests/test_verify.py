"""The ledger: what agrees, what differs, what is measured and what is not."""

import json
import shutil
from pathlib import Path

import pytest

from ddpm_jax import recipes
from ddpm_jax.cli import main
from ddpm_jax.experiment import Claim
from ddpm_jax.verify import FIGURES, verify

RUNS = [name for name in recipes.shipped() if name.startswith("ho_2020")]
TINY = Path(__file__).parent / "experiments" / "tiny.py"


@pytest.mark.parametrize("name", RUNS)
def test_the_papers_runs_are_as_the_paper_states(name):
    rows = verify(recipes.read(recipes.find(name))())
    assert {row.what for row in rows} >= {
        "parameters",
        "T",
        "beta_1",
        "beta_T",
        "batch size",
        "training steps",
        "flips",
    }
    assert all(row.agrees is (True if row.what in FIGURES else None) for row in rows)


@pytest.mark.parametrize(
    "knob, what",
    [
        ("width", "parameters"),
        ("timesteps", "T"),
        ("batch_size", "batch size"),
        ("num_steps", "training steps"),
        ("warmup", "learning rate at step 2500"),
        ("learning_rate", "learning rate after step 5000"),
    ],
)
def test_a_knob_that_leaves_the_paper_is_found(knob, what):
    value = {"learning_rate": 1e-3}.get(knob, 64)
    rows = verify(recipes.read(recipes.find("ho_2020/cifar10"))(**{knob: value}))
    assert what in {row.what for row in rows if row.agrees is False}


def test_a_difference_is_an_exit_status(capsys, tmp_path):
    assert main(["verify", "ho_2020/cifar10", "--json", str(tmp_path / "ledger.json")]) == 0
    told = capsys.readouterr().out
    assert "35,746,307" in told and "DIFFERS" not in told and "not measured" in told
    assert json.loads((tmp_path / "ledger.json").read_text())[0]["here"] == 35_746_307
    assert main(["verify", "ho_2020/cifar10", "--no-flips"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_what_was_measured_in_full_is_shown(finished, tmp_path):
    experiment = recipes.read(TINY)()
    object.__setattr__(experiment, "claims", (Claim("bits/dim", 3.0, "none"),))
    run = shutil.copytree(finished, tmp_path / "run")
    quick = {
        "step": 12,
        "weights": "ema",
        "protocol": {"split": "test", "num": 500, "times": None, "clip": True},
        "bpd": {},
    }
    whole = quick | {"protocol": quick["protocol"] | {"num": None}, "bpd": {"total": [4.5, 0.1], "num_examples": 360}}
    (run / "evaluation.json").write_text(json.dumps([quick]))
    assert verify(experiment, run)[0].here is None
    (run / "evaluation.json").write_text(json.dumps([quick, whole]))
    row = verify(experiment, run)[0]
    assert row.here == 4.5 and "+- 0.1" in row.protocol and row.agrees is None


def test_mistakes_are_told(finished, capsys):
    assert main(["verify", "digits"]) == 2
    assert "no claims" in capsys.readouterr().err
    assert main(["verify", "ho_2020/cifar10", "--workdir", str(finished)]) == 2
    assert "another experiment" in capsys.readouterr().err
    assert main(["verify", "ho_2020/cifar10", "--workdir", "/nowhere"]) == 2
    assert "is not a workdir" in capsys.readouterr().err
