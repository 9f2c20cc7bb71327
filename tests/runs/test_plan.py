"""What `plan` promises of meshes and accelerators, held against what JAX does with them."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ddpm_jax.commands import main
from ddpm_jax.experiment import shapes
from ddpm_jax.runs import accelerators, experiment_files
from ddpm_jax.runs.costs import collectives, tree_bytes
from ddpm_jax.runs.plan import Plan, forecast, forecast_table, plan
from ddpm_jax.runs.requests import Placement
from ddpm_jax.runs.train import initial_state
from ddpm_jax.training import EMA, sharding

TINY = experiment_files.read(Path(__file__).parents[1] / "experiments" / "tiny.py")


@pytest.mark.slow  # compiles a step for two meshes
def test_a_split_state_takes_its_share_as_planned():
    """Bytes a device, by kind, are those of the arrays that a run makes there."""
    experiment, mesh = TINY(width=64), "data=2,fsdp=4"
    split, whole = plan(experiment, Placement(mesh=mesh)), plan(experiment)
    state = initial_state(experiment, sharding.make_mesh(sharding.parse(mesh)))
    here = jax.devices()[0]
    shards = [x.addressable_data(0) for x in jax.tree.leaves(state.averages[EMA])]
    assert all(shard.device == here for shard in shards)
    assert split.ema_bytes == sum(shard.nbytes for shard in shards)
    assert whole.ema_bytes / 4 < split.ema_bytes < whole.ema_bytes / 3
    assert split.flops_per_step == pytest.approx(whole.flops_per_step)
    # what is split is put together once a step, and its gradients are summed once
    assert whole.collectives.keys() == {"all-reduce"} and split.collectives.keys() == {"all-reduce", "all-gather"}
    apart = [x for x in jax.tree.leaves(state.params) if not x.sharding.is_fully_replicated]
    assert split.collectives["all-gather"] == (len(apart), sum(x.nbytes for x in apart))
    assert split.collectives["all-reduce"][0] == 1


def test_most_arrays_are_too_small_to_split_and_take_next_to_no_memory():
    """Two thirds of the arrays of the U-Net for CelebA-HQ stay whole, for less than half a percent of the memory."""
    network = shapes(experiment_files.read(experiment_files.find("ho_2020/celeba_hq"))())
    mesh = sharding.make_mesh({"fsdp": 4})
    all_split, kept = (sharding.with_shardings(network, mesh, small) for small in (0, sharding.SMALL))
    whole = [x.sharding.is_fully_replicated for x in jax.tree.leaves(kept)]
    assert sum(whole) > 0.6 * len(whole)
    assert tree_bytes(all_split) < tree_bytes(kept) < 1.005 * tree_bytes(all_split)


@pytest.mark.slow
def test_parts_of_a_batch_cost_the_same_and_take_less():
    whole, parts = plan(TINY(batch_size=256)), plan(TINY(batch_size=256), Placement(accumulate=8))
    assert parts.flops_per_step == pytest.approx(whole.flops_per_step, rel=0.02)
    assert parts.activation_bytes < 0.5 * whole.activation_bytes


def test_messages_are_read_off_a_program():
    program = """
      %a = (f32[32]{0}, bf16[4,8]{1,0}) all-reduce(f32[32]{0} %x, bf16[4,8]{1,0} %y), channel_id=1
      %b = f32[2,3]{1,0} all-gather-start(f32[2,3]{1,0} %x), dimensions={0}
      %c = f32[2,3]{1,0} all-gather-done(f32[2,3]{1,0} %b)
      %d = pred[5]{0} all-reduce(pred[5]{0} %x)
      %f = ((f32[16]{0}), f32[16]{0}) all-reduce-start(f32[16]{0} %x)
      %g = f32[16]{0} all-reduce-done(%f)
      %h = (f32[8]{0}, f32[8]{0}) all-reduce-start(f32[8]{0} %x, f32[8]{0} %y)
      %e = f32[] add(f32[] %all-reduce.1, f32[] %x)
    """
    assert collectives(program) == {"all-reduce": (4, 32 * 4 + 32 * 2 + 5 + 64 + 64), "all-gather": (1, 24)}


def costs(**other) -> Plan:
    gib = 2**30
    some = {
        "parameters": 10**9,
        "batch_size": 256,
        "flops_per_step": 4e15,
        "parameter_bytes": 4 * gib,
        "optimizer_bytes": 8 * gib,
        "ema_bytes": 4 * gib,
        "batch_bytes": 0,
        "activation_bytes": 40 * gib,
        "total_bytes": 56 * gib,
        "steps": 1000,
        "flops": 4e18,
        "backend": "cpu",
        "devices": 8,
        "mesh": {"data": 8, "fsdp": 1},
        "accumulate": 1,
        "dtype": "bfloat16",
        "collectives": {"all-reduce": (1, 9 * 10**9)},
    }
    return Plan(**(some | other))


def test_time_is_work_over_rate():
    """4 PFLOP over eight H100 at 40 % of 989 TFLOP/s; 9 GB through links of 450 GB/s."""
    printed = forecast(costs(), "H100", 0.4)
    assert printed.fits and printed.advice == "" and printed.may_fit
    assert (printed.least_bytes, printed.most_bytes) == pytest.approx((24 * 2**30, 60 * 2**30))
    assert printed.step_seconds == pytest.approx(4e15 / (8 * 0.4 * 989e12))
    assert printed.hours == pytest.approx(1000 * printed.step_seconds / 3600)
    assert printed.message_seconds == pytest.approx(0.02)
    slower = forecast(costs(dtype="float32"), "H100", 0.4)
    assert slower.step_seconds == pytest.approx(printed.step_seconds * 989 / 495)


@pytest.mark.parametrize(
    "other, advice",
    [
        ({}, "--accumulate 16"),
        ({"activation_bytes": 30 * 2**30, "total_bytes": 46 * 2**30}, "--accumulate 16"),
        ({"parameter_bytes": 20 * 2**30, "total_bytes": 72 * 2**30}, "fsdp="),
        ({"accumulate": 4}, "fsdp=2 with --accumulate 32 should fit"),
    ],
)
def test_what_does_not_fit_is_told_what_would(other, advice):
    printed = forecast(costs(**other), "v4", 0.4)
    assert not printed.fits and printed.advice.startswith(advice)


def test_what_fits_at_best_may_fit():
    """16 GiB of state and 40 of activations, of which an accelerator needs 8 to 44, in 27.4 GiB."""
    printed = forecast(costs(), "v4", 0.4)
    assert printed.may_fit and not printed.fits
    assert "may fit, which --compile answers; if not, --accumulate" in forecast_table(printed, costs(), 0.4)


def test_kinds_of_devices_are_known_by_their_own_names():
    assert accelerators.of_kind("NVIDIA H100 80GB HBM3").name == "H100"
    assert accelerators.of_kind("TPU v5 lite").name == "v5e" and accelerators.of_kind("TPU v5p").name == "v5p"
    assert accelerators.of_kind("TPU v5").name == "v5p"


@pytest.mark.parametrize("kind, memory", [("A100-SXM4-40GB", 40), ("A100-PCIE-40GB", 40), ("A100-SXM4-80GB", 80)])
@pytest.mark.parametrize("maker", ["", "NVIDIA "])
def test_an_a100_has_the_memory_that_its_name_states(maker, kind, memory):
    """Older drivers leave out the maker's name."""
    device = accelerators.of_kind(maker + kind)
    assert device.memory == memory and accelerators.named(device.name) == device


@pytest.mark.parametrize(
    "kind", ["cpu", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA H100 PCIe", "TPU v4 lite", "TPU v5x"]
)
def test_variants_that_are_not_listed_are_not_taken_for_others(kind):
    assert accelerators.of_kind(kind) is None


@pytest.mark.slow  # compiles the programs of two meshes
def test_the_command_writes_all_of_it(tmp_path, capsys):
    out = tmp_path / "plan.json"
    file = str(Path(__file__).parents[1] / "experiments" / "tiny.py")
    command = ["plan", file, "--mesh", "data=4,fsdp=2", "--accelerator", "v5e", "--json", str(out)]
    assert main(command) == 0
    assert "on 8 v5e" in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written["mesh"] == {"data": 4, "fsdp": 2} and written["forecast"]["fits"]
    assert main(["plan", file, "--mesh", "data=3"]) == 2
    assert "a batch of 8 does not divide over 3 devices" in capsys.readouterr().err
    assert main(["plan", file, "--accelerator", "H100", "--utilisation", "1.5"]) == 2
    assert "--utilisation 1.5" in capsys.readouterr().err


DIVERGING = """
import importlib.util
import optax, dataclasses
from ddpm_jax.runs import experiment_files
from ddpm_jax.experiment import Every

def experiment(*, rate: float = 1e30):
    tiny = experiment_files.read({tiny!r})(num_steps=8)
    return dataclasses.replace(tiny, optimizer=optax.sgd(rate), every=Every(log=2, sample=0, save=2))
"""


@pytest.mark.slow
def test_a_run_whose_loss_is_no_number_stops_or_skips(tmp_path, capsys):
    from pathlib import PosixPath

    file = tmp_path / "diverging.py"
    tiny = Path(__file__).parents[1] / "experiments" / "tiny.py"
    file.write_text("from pathlib import Path, PosixPath\n" + DIVERGING.format(tiny=PosixPath(tiny)))
    run = tmp_path / "run"
    assert main(["train", str(file), "--workdir", str(run)]) == 1
    printed = capsys.readouterr().err
    assert "the loss is nan at step 2" in printed and "--on-nan skip" in printed
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.isdecimal()]
    assert main(["train", str(file), "--workdir", str(tmp_path / "other"), "--on-nan", "skip"]) == 0
    assert "2 updates skipped" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "other" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row.get("skipped", 0) for row in rows) == 7  # all but the first, which led there


@pytest.mark.slow
def test_a_trace_is_written_of_the_steps_that_are_asked_for(tmp_path, capsys):
    file, run = str(Path(__file__).parents[1] / "experiments" / "tiny.py"), tmp_path / "run"
    assert main(["train", file, "--workdir", str(run), "--profile", "4:6"]) == 0
    assert list((run / "profile").rglob("*.xplane.pb"))
    for span in ("4", "6:4", "a:b", "12:13"):
        assert main(["train", file, "--workdir", str(tmp_path / "no"), "--profile", span]) == 2
        assert "--profile" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert np.isfinite(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["tflops_per_second"])
