"""The ledger: what agrees, what differs, what is measured and what is not."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from flax import linen as nn

from ddpm_jax.commands import main
from ddpm_jax.diffusion import parameterizations
from ddpm_jax.experiment import Claim
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.comparable import newest
from ddpm_jax.runs.verify import FIGURES, verify
from ddpm_jax.training import ema_ramp

RUNS = [name for name in experiment_files.shipped() if name.startswith("ho_2020")]
TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


class Identity(nn.Module):
    """A network without dropout, or anything else."""

    def __call__(self, x, index, label=None, train=False):
        return x


LEARNED = {"variance": "learned", "loss": "bound"}
ROWS = [*((name, {}) for name in RUNS), *((RUNS[1], {"prediction": each} | LEARNED) for each in ("eps", "mean"))]


@pytest.mark.parametrize("name, knobs", ROWS, ids=str)
def test_the_papers_runs_are_as_the_paper_states(name, knobs):
    rows = verify(experiment_files.read(experiment_files.find(name))(**knobs))
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


NICHOL = [
    ("cifar10", {}, 52_546_438),
    ("cifar10", {"schedule": "linear", "loss": "simple"}, 52_542_979),
    ("imagenet64", {}, 121_063_942),
    ("imagenet64", {"loss": "simple", "num_steps": 200_000}, 121_060_483),
    ("imagenet64", {"loss": "vlb"}, 121_063_942),
    ("imagenet64", {"labels": True}, 273_049_350),
]


@pytest.mark.parametrize("name, knobs, parameters", NICHOL, ids=str)
def test_the_runs_of_2021_are_as_the_paper_and_the_released_code_state(name, knobs, parameters):
    rows = verify(experiment_files.read(experiment_files.find(f"nichol_2021/{name}"))(**knobs))
    assert all(row.agrees is (True if row.what in FIGURES else None) for row in rows)
    found = {row.what: row.here for row in rows}
    assert found["parameters"] == parameters and "FID" in found
    assert found.keys() >= {"T", "batch size", "training steps", "learning rate at step 1", "EMA decay"}


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
    rows = verify(experiment_files.read(experiment_files.find("ho_2020/cifar10"))(**{knob: value}))
    assert what in {row.what for row in rows if row.agrees is False}


def test_a_difference_is_an_exit_status(capsys, tmp_path):
    assert main(["verify", "ho_2020/cifar10", "--json", str(tmp_path / "ledger.json")]) == 0
    printed = capsys.readouterr().out
    assert "35,746,307" in printed and "DIFFERS" not in printed and "not measured" in printed
    assert json.loads((tmp_path / "ledger.json").read_text())[0]["here"] == 35_746_307
    assert main(["verify", "ho_2020/cifar10", "--no-flips"]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_what_was_measured_in_full_is_shown(finished, tmp_path):
    experiment = dataclasses.replace(experiment_files.read(TINY)(), claims=(Claim("bits/dim", 3.0, "none"),))
    run = shutil.copytree(finished, tmp_path / "run")
    quick = {
        "step": 12,
        "weights": "ema",
        "protocol": {"split": "test", "num": 500, "times": None, "clip": True},
        "bpd": {},
    }
    whole = quick | {
        "protocol": quick["protocol"] | {"num": None},
        "bpd": {"total": [4.5, 0.1], "num_examples": 360, "times": 49},
    }
    (run / "evaluation.json").write_text(json.dumps([quick]))
    assert verify(experiment, run)[0].here is None
    (run / "evaluation.json").write_text(json.dumps([quick, whole]))
    row = verify(experiment, run)[0]
    assert row.here == 4.5 and "+- 0.1" in row.protocol and row.agrees is None


def test_only_a_whole_measurement_of_the_newest_step_counts(finished, tmp_path):
    experiment = dataclasses.replace(experiment_files.read(TINY)(), claims=(Claim("bits/dim", 3.0, "none"),))
    run = shutil.copytree(finished, tmp_path / "run")
    protocol = {"split": "test", "num": None, "times": None, "clip": True}
    partly = [{"split": "train"}, {"num": 9}, {"times": 9}, {"clip": False}, {"steps": 5}]
    records = [
        {
            "step": step,
            "weights": "ema",
            "protocol": protocol | other,
            "bpd": {"total": [float(step), 0.1], "num_examples": 9, "times": 49},
        }
        for step, other in [(8, {}), (12, {}), (4, {}), *((99, other) for other in partly)]
    ]
    (run / "evaluation.json").write_text(json.dumps(records))
    assert verify(experiment, run)[0].here == 12


DRAWN = {"sampler": "ancestral", "steps": 1000, "spacing": "even", "eta": None, "variance": None, "guidance": None}
FEATURES = {"features": "inception", "samples": 50_000, "split": "train", "reference": 50_000}
ASKED = {"split": "train", "num": None, "times": None, "clip": True}


def record(step: int = 12, asked: dict | None = None, features: dict | None = None, drawn: dict | None = None) -> dict:
    """A record of FID and IS, by the protocol of published numbers but for what is given."""
    how = {"protocol": FEATURES | (features or {}), "drawn": DRAWN | {"clip": True} | (drawn or {})}
    scores = {"of_splits": [9.5, 0.07], "of_all": [9.6, 0.03]}
    measured = {"fid": {"fid": [3.25, 0.02]} | how, "is": scores | how}
    return {"step": step, "weights": "ema", "protocol": ASKED | (asked or {}), **measured}


def shown(what: str, folder: Path, *records: dict) -> tuple[float | None, str]:
    """What is shown beside a claim for a run with these records."""
    (folder / "evaluation.json").write_text(json.dumps(records))
    return newest(what, folder)


def test_a_published_protocol_is_shown_in_words(tmp_path):
    value, words = shown("FID", tmp_path, record())
    assert value == 3.25
    for part in ("+- 0.02", "all 50,000 training", "50,000 samples", "ancestral in 1000 steps", "Inception", "step 12"):
        assert part in words
    value, words = shown("IS", tmp_path, record())
    assert value == 9.5 and "+- 0.03" in words and "standard deviation 0.07" in words and "biased" not in words
    few = {"features": {"samples": 10_000}, "drawn": {"steps": 50, "sampler": "ddim", "eta": 0.5}}
    words = shown("FID", tmp_path, record(**few))[1]
    assert "10,000 samples (biased: published numbers are of 50,000) by ddim in 50 steps, eta 0.5" in words


OTHER = [
    {"features": {"features": "pixels"}},
    {"features": {"features": "inception-pytorch-fid"}},
    {"features": {"samples": 9_999}},
    {"drawn": {"guidance": 2.0}},
    {"drawn": {"clip": False}},
]
OF_FID = [{"features": {"split": "test"}}, {"asked": {"num": 1000}}, {"asked": {"reference": "stats.npz"}}]


@pytest.mark.parametrize("what, other", [*(("FID", each) for each in (*OTHER, *OF_FID)), *(("IS", x) for x in OTHER)])
def test_numbers_of_other_protocols_do_not_appear(tmp_path, what, other):
    value, words = shown(what, tmp_path, record(**other))
    assert value is None and "not measured comparably: run ddpm-jax evaluate --metrics" in words


def test_of_comparable_numbers_that_of_the_newest_step_and_the_own_sampler_is_shown(tmp_path):
    own, fast = record(), record(asked={"steps": 50}, drawn={"steps": 50})
    few, old = record(features={"samples": 20_000}), record(step=8)
    for order in ((own, fast, few, old), (old, few, fast, own)):
        assert "in 1000 steps" in (words := shown("FID", tmp_path, *order)[1])
        assert "50,000 samples" in words and "step 12" in words
    assert "in 50 steps" in shown("FID", tmp_path, fast, old)[1]


def test_the_likelihood_of_the_ode_is_shown_with_how_it_was_measured(tmp_path):
    asked = {"split": "test", "dequantization": "uniform", "tolerance": 1e-5}
    measured = {"nll": {"bits_per_dim": [3.5, 0.01], "num_examples": 360, "calls": 99.0}}
    value, words = shown("NLL", tmp_path, record(asked=asked) | measured)
    assert value == 3.5 and "360 test examples, dequantization uniform, tolerance 1e-05" in words
    assert shown("NLL", tmp_path, record(asked=asked | {"num": 5}) | measured)[0] is None
    assert shown("bits/dim", tmp_path, record(asked=asked) | measured)[0] is None


def test_what_differs_is_found():
    experiment = experiment_files.read(experiment_files.find("ho_2020/cifar10"))()
    process = experiment.process
    changes = {
        "variance at t = 2": {"parameterization": parameterizations.eps(process)},
        "x_0 is clipped": {"parameterization": parameterizations.eps(process, parameterizations.fixed_large)},
        "EMA decay": {"ema_decay": ema_ramp(0.9999)},
        "flips": {"augment": lambda key, images: images},
        "dropout": {"network": Identity()},
    }
    for what, change in changes.items():
        rows = {row.what: row for row in verify(dataclasses.replace(experiment, **change))}
        assert rows[what].agrees is False, what
        json.dumps([row._asdict() for row in rows.values()], allow_nan=False)
    with pytest.raises(ValueError, match="a claim on 'batchsize'"):
        verify(dataclasses.replace(experiment, claims=(Claim("batchsize", 1, "none"),)))


def test_mistakes_are_told(finished, capsys):
    assert main(["verify", "digits"]) == 2
    assert "no claims" in capsys.readouterr().err
    assert main(["verify", "ho_2020/cifar10", "--workdir", str(finished)]) == 2
    assert "another experiment" in capsys.readouterr().err
    assert main(["verify", "ho_2020/cifar10", "--workdir", "/nowhere"]) == 2
    assert "is not a workdir" in capsys.readouterr().err
