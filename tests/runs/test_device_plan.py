"""Programs compiled by the compilers of accelerators, where these are installed."""

import itertools
import json
import math
import tomllib
from pathlib import Path

import jax
import pytest
from mistakes import fails
from shipped import SHIPPED

from ddpm_jax.commands import main
from ddpm_jax.experiment import shapes
from ddpm_jax.runs import compilers, experiment_files
from ddpm_jax.runs.accelerators import ACCELERATORS, named
from ddpm_jax.runs.compilers import _reason
from ddpm_jax.runs.costs import tree_bytes
from ddpm_jax.runs.device_plan import device_plan
from ddpm_jax.runs.requests import Placement
from ddpm_jax.runs.step_program import abstract_batch, abstract_state
from ddpm_jax.training import sharding

PLANNED = [(each, name) for each in SHIPPED for name in each.meshes]
TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"


def available(name: str) -> None:
    """Skips a test where the compiler of this accelerator is not installed."""
    try:
        compilers.devices(named(name), 1)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("name", [each.name for each in ACCELERATORS])
def test_there_are_as_many_devices_as_are_planned_for(name):
    available(name)
    for count in (1, 8, 32):
        assert sharding.make_mesh({"data": count}, compilers.devices(named(name), count)).size == count


@pytest.mark.slow
@pytest.mark.parametrize("name", ["H100", "v5e"])
def test_what_the_compiler_says_of_the_tiny_experiment_is_what_its_arrays_are(name, tmp_path):
    available(name)
    experiment = experiment_files.read(TINY)(batch_size=16)
    mesh = sharding.make_mesh({"data": 8})
    step, sampler, bound = device_plan(experiment, Placement(mesh="data=8"), named(name))
    given = tree_bytes(abstract_state(experiment, mesh)) + tree_bytes(abstract_batch(experiment, mesh))
    assert 0.99 * given < step.compiled.argument_bytes < 1.5 * given + 2**20  # layouts have padding
    assert step.compiled.alias_bytes > 0.9 * tree_bytes(abstract_state(experiment, mesh))
    gradient = sum(x.size * 4 for x in jax.tree.leaves(abstract_state(experiment, mesh).params))
    assert step.compiled.collectives["all-reduce"][1] == pytest.approx(gradient, rel=0.01)
    assert step.fits and 0 < step.seconds < 0.01
    assert not sampler.compiled.collectives and not bound.compiled.collectives
    assert sampler.flops / sampler.images / 50 == pytest.approx(bound.flops / bound.images / 49, rel=0.1)


@pytest.mark.slow
def test_each_split_parameter_is_gathered_once_a_step():
    """For forward and backward pass together; the compiler may join messages, and may send bfloat16."""
    available("v5e")
    experiment, mesh = experiment_files.read(TINY)(width=64, batch_size=16), sharding.make_mesh({"fsdp": 4})
    step = next(iter(device_plan(experiment, Placement(mesh="data=2,fsdp=4"), named("v5e"))))
    split = [x for x in jax.tree.leaves(abstract_state(experiment, mesh).params) if not x.sharding.is_fully_replicated]
    count, size = step.compiled.collectives["all-gather"]
    assert 0 < count <= len(split)
    assert sum(2 * x.size for x in split) <= size <= sum(4 * x.size for x in split)


@pytest.mark.slow
@pytest.mark.parametrize(("shipped", "name"), PLANNED, ids=[f"{each.command()}-{name}" for each, name in PLANNED])
def test_every_shipped_experiment_compiles_at_full_size(shipped, name):
    """Train step and sampler, for eight H100 or a v5e-16; 256x256 takes minutes. None of them needs more than a device.

    All gradients are summed over the devices, in the type that the compiler chooses, bfloat16 at the least.
    """
    available(name)
    experiment, mesh = shipped.build(), shipped.meshes[name]
    step, sampler = itertools.islice(device_plan(experiment, Placement(mesh=mesh), named(name)), 2)
    assert step.devices == math.prod(sharding.parse(mesh).values()) and step.fits
    parameters = sum(x.size for x in jax.tree.leaves(shapes(experiment)))
    assert sum(size for _, size in step.compiled.collectives.values()) >= 2 * parameters
    assert sampler.fits == (sampler.compiled.total_bytes <= 0.95 * named(name).memory * 1e9)


@pytest.mark.slow
def test_the_command_prints_and_writes_what_was_compiled(tmp_path, capsys):
    available("H100")
    out = tmp_path / "costs.json"
    assert main(["plan", str(TINY), "--accelerator", "H100", "--compile", "--json", str(out)]) == 0
    assert capsys.readouterr().out.count("roofline") == 3
    assert [each["program"] for each in json.loads(out.read_text())] == ["train step", "sampler", "bound"]


def test_a_compiler_that_is_missing_is_named_with_the_way_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: None)
    for name, extra in (("H100", "gpu"), ("v5e", "tpu")):
        message = fails(capsys, "plan", str(TINY), "--accelerator", name, "--compile")
        assert f"pip install 'ddpm_jax[{extra}]'" in message


def test_a_compiler_that_cannot_start_is_one_line(monkeypatch, capsys):
    """As where another process has libtpu."""

    def occupied(*args, **options):
        raise jax.errors.JaxRuntimeError("ABORTED: Internal error when accessing libtpu multi-process lockfile.")

    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(compilers.topologies, "get_topology_desc", occupied)
    message = fails(capsys, "plan", str(TINY), "--accelerator", "v5e", "--compile")
    assert "the compiler for v5e cannot start: ABORTED" in message and "lockfile" in message


def test_the_descriptions_of_gpus_agree_with_the_data_sheets():
    described = tomllib.loads(Path(compilers.__file__).with_name("gpus.toml").read_text())
    assert described.keys() == {each.name for each in ACCELERATORS if each.dimensions is None}
    for name, gpu in described.items():
        assert gpu["bandwidth"] / 1e9 == pytest.approx(named(name).bandwidth, rel=0.01)
        assert gpu["memory"] / 1e9 == pytest.approx(named(name).memory, rel=0.08)


def test_compile_requires_an_accelerator(capsys):
    assert "--compile requires --accelerator" in fails(capsys, "plan", str(TINY), "--compile")


def test_a_failure_names_the_operation_and_its_line():
    message = """INTERNAL: no such instruction
    while compiling %conv, metadata={op_name="jit(step)/conv" source_file="/lib/unet.py" source_line=12}"""
    assert _reason(message) == "INTERNAL: no such instruction (at jit(step)/conv, /lib/unet.py:12)"
    assert _reason("out of memory") == "out of memory"
    assert "--remat" in _reason("RESOURCE_EXHAUSTED: 16.71G of 15.75G")
