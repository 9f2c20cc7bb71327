"""What a step costs in things that are counted: compilations, transfers, bytes, FLOPs. Seconds are for benchmarks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.experiment import init_fn
from ddpm_jax.networks.normalization import group_norm
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.costs import collectives, flops, traffic, tree_bytes
from ddpm_jax.runs.step_program import Compiled, abstract_batch, jitted, make_program, step_flops, train_step
from ddpm_jax.runs.train import initial_state
from ddpm_jax.sampling import Run
from ddpm_jax.training import TrainState, sharding
from ddpm_jax.training.keys import keys

TINY = experiment_files.read(Path(__file__).parents[1] / "experiments" / "tiny.py")
EXPERIMENT = TINY(num_steps=8)
MESH = sharding.make_mesh({"data": 1}, jax.devices()[:1])


@pytest.fixture(scope="module")
def lowered() -> Any:
    step = jitted(EXPERIMENT, MESH, train_step(EXPERIMENT, MESH))
    return step.lower(initial_state(EXPERIMENT, MESH), abstract_batch(EXPERIMENT, MESH))


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(EXPERIMENT, jax.jit(init_fn(EXPERIMENT))(jax.random.key(0)), 0)


def test_a_step_takes_nothing_from_the_host_that_was_not_put_there():
    """The indices of its images are; neither state nor images pass. (On a CPU the way back is not guarded.)"""
    state = initial_state(EXPERIMENT, MESH)
    advance = make_program(EXPERIMENT, MESH, EXPERIMENT.data.open("train")).advance
    state, _ = advance(state, 0)
    with jax.transfer_guard("disallow"):
        state, metrics = advance(state, 1)
    assert int(state.step) == 2 and np.isfinite(metrics["loss"]).all()


def test_a_step_is_lowered_and_compiled_once_for_each_shape_of_a_call():
    """Being counted costs no second lowering."""
    step = jax.jit(lambda state, index: index.sum())
    lowered = []
    stub = SimpleNamespace(lower=lambda *arguments: lowered.append(step.lower(*arguments)) or lowered[-1])
    program = Compiled(stub, EXPERIMENT, MESH)
    assert program.speed(1.0) == {}
    for length in (3, 3, 2, 3):
        program(TrainState(jnp.int32(0), None, None, None), np.zeros(length, np.float32))
    assert len(lowered) == 2
    assert program.speed(1e12) == program.speed(1e12) == {"tflops_per_second": flops(lowered[1])}


def test_what_an_accelerators_compiler_does_not_count_is_counted_on_the_cpu(monkeypatch, lowered):
    """As on a GPU or TPU, where `cost_analysis` of what is lowered is None."""
    known, count = flops(lowered), jax.stages.Lowered.cost_analysis
    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda each: None if each is lowered else count(each))
    assert flops(lowered) is None and step_flops(EXPERIMENT, lowered) == pytest.approx(known, rel=0.01)


def test_nothing_is_told_where_nothing_can_be_counted(monkeypatch, lowered):
    def refused(**_):
        raise RuntimeError("Unknown backend cpu")

    monkeypatch.setattr(jax.stages.Lowered, "cost_analysis", lambda _: None)
    monkeypatch.setattr(jax, "local_devices", refused)
    assert step_flops(EXPERIMENT, lowered) == 0


def test_a_sampler_stays_on_the_device_and_compiles_once(run):
    sampler = run.sampler(5)
    first, second = keys(0, 3), keys(1, 3)
    sampler(first)
    with jax.transfer_guard("disallow"):
        images = sampler(second)
    assert sampler.func._cache_size() == 1 and images.shape[0] == 3


def test_a_sampler_takes_no_more_memory_for_more_steps(run):
    samplers = [run.sampler(steps) for steps in (5, 20)]
    few, many = (one.func.lower(*one.args, keys(0, 4)).compile().memory_analysis() for one in samplers)
    scanned = 3 * 4 * (20 - 5)  # the number, t and s of each step; an image has 256 bytes
    assert many.temp_size_in_bytes <= few.temp_size_in_bytes + scanned + 64


def test_a_train_step_costs_three_forward_passes(lowered):
    """One forward, two backward: for the inputs and for the weights."""
    batch = abstract_batch(EXPERIMENT, MESH)["image"].shape
    params = initial_state(EXPERIMENT, MESH).params
    forward = jax.jit(lambda params, x, index: EXPERIMENT.network.apply({"params": params}, x, index))
    once = flops(forward.lower(params, np.zeros(batch, np.float32), np.zeros(batch[0], np.int32)))
    assert 2.6 * once < flops(lowered) < 3.2 * once


def test_a_train_step_works_in_the_memory_of_its_state(lowered):
    """Every array of the state is donated."""
    state = initial_state(EXPERIMENT, MESH)
    assert lowered.compile().memory_analysis().alias_size_in_bytes >= tree_bytes(state)


def test_a_group_norm_and_its_gradient_read_and_write_little():
    """Eight times the bytes of the input; with means over groups of channels, as Flax has it, eleven times."""
    x, scale = jax.ShapeDtypeStruct((4, 16, 16, 32), np.float32), jax.ShapeDtypeStruct((32,), np.float32)

    def gradient(x, scale, weight):
        return jax.vjp(lambda x, scale: group_norm(x, scale, scale, 8, 1e-6), x, scale)[1](weight)

    cost: Any = jax.jit(gradient).lower(x, scale, x).compile().cost_analysis()
    assert cost["bytes accessed"] < 9 * np.prod(x.shape) * 4


PROGRAM = """
%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %inside = f32[8]{0} add(%p, %p)
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %sum = f32[8]{0} all-reduce(%x), to_apply=%add
  ROOT %out = (s32[], f32[8]{0}) tuple(%x, %sum)
}

ENTRY %main (a: bf16[4,8], b: f32[8]) -> f32[8] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = f32[8]{0} parameter(1)
  %ahead = ((bf16[4,8]{1,0}), bf16[1,8]{1,0:T(8,128)(2,1)S(1)}, u32[]) slice-start(%a), slice={[0:1], [0:8]}
  %here = bf16[1,8]{1,0:T(8,128)(2,1)S(1)} slice-done(%ahead)
  %in = (f32[8]{0:S(1)}, f32[8]{0}, u32[]) copy-start(%b)
  %there = f32[8]{0:S(1)} copy-done(%in)
  %out = (f32[8]{0}, f32[8]{0:S(1)}, u32[]) copy-start(%there)
  %back = f32[8]{0} copy-done(%out)
  %parts = ((f32[64]{0}, f32[640]{0}), (f32[8]{0}, f32[80]{0})) reduce-scatter-start(%x, %y), dimensions={0}
  %either = f32[8]{0} conditional(%p, %b, %b), branch_computations={%none, %body}
  %f = f32[8]{0} fusion(%b, %here), kind=kLoop, calls=%fused
  %init = (s32[], f32[8]{0}) tuple(%f)
  %loop = (s32[], f32[8]{0}) while(%init), body=%body, backend_config={"known_trip_count":{"n":"10"}}
  ROOT %last = f32[8]{0} get-tuple-element(%loop), index=1
}
"""


def test_traffic_is_what_kernels_read_and_write_in_each_round():
    """The slice is read once; the fusion reads b and writes f, its other operand is in the chip's own memory.

    A copy into that memory is read, one out of it written; of the branches the second sends a message.
    """
    scattered, branch = 2 * 352, 32 + 32
    assert traffic(PROGRAM) == 1 * 8 * 2 + 32 + 32 + scattered + branch + (32 + 32) + 10 * (32 + 32)
    assert collectives(PROGRAM) == {"all-reduce": (11, 11 * 32), "reduce-scatter": (1, 352)}


ASYNCHRONOUS = """
%begun (p: f32[2]) -> (f32[2], f32[8]) {
  %sent = f32[8]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}

%advanced (p: f32[2]) -> (f32[2], f32[8]) {
  %on = f32[8]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}

%finished (p: f32[2]) -> f32[8] {
  %end = f32[8]{0} all-gather(%p), channel_id=7, frontend_attributes={chain_id="0"}
}

%body (state: f32[8]) -> f32[8] {
  %a = f32[8]{0} fusion(%p), kind=kCustom, calls=%begun
  %b = f32[8]{0} fusion(%a), kind=kOutput, calls=%advanced
  %c = f32[8]{0} fusion(%b), kind=kOutput, calls=%advanced
  ROOT %d = f32[8]{0} fusion(%c), kind=kCustom, calls=%finished
}

ENTRY %main (p: f32[2]) -> f32[8] {
  %loop = f32[8]{0} while(%p), body=%body, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %other = f32[16]{0} all-gather(%q), channel_id=8
}
"""


def test_a_message_that_goes_on_beside_computation_counts_once_in_each_round():
    assert collectives(ASYNCHRONOUS) == {"all-gather": (3 + 1, 3 * 32 + 64)}


def test_traffic_of_a_program_of_jax_is_that_of_its_arrays():
    x = jnp.ones((1000, 1000))
    once = jax.jit(lambda x: jnp.tanh(x) * 2).lower(x).compile()
    assert traffic(once.as_text()) == pytest.approx(2 * x.nbytes, rel=0.01)
    looped = jax.jit(lambda x: jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x) * 2, x)).lower(x).compile()
    assert 7 * 2 * x.nbytes < traffic(looped.as_text()) < 10 * 2 * x.nbytes


def test_of_an_array_that_a_fusion_slices_the_slices_count():
    """8 of 1000 rows, summed in the same kernel; of the array that it uses both whole and sliced, all."""
    x = jnp.ones((1000, 1000))
    part = jax.jit(lambda x: jnp.tanh(x[4:12] * 2)).lower(x).compile()
    assert traffic(part.as_text()) == pytest.approx(2 * 8 * 4000, rel=0.01)
    both = jax.jit(lambda x: jnp.tanh(x) * x[4:5]).lower(x).compile()
    assert traffic(both.as_text()) > 1.9 * x.nbytes


SLICED = """
%used (param_0: f32[8,4], param_1: bf16[8,4], param_2: f32[8,4]) -> (f32[2,4], f32[3,4], f32[8,4]) {
  %param_0 = f32[8,4]{1,0} parameter(0)
  %param_1 = bf16[8,4]{1,0} parameter(1)
  %param_2 = f32[8,4]{1,0} parameter(2)
  %wide = f32[8,4]{1,0} convert(%param_1)
  %negative = f32[8,4]{1,0} negate(%param_0)
  %product = f32[8,4]{1,0} multiply(%negative, %param_0)
  %sum = f32[8,4]{1,0} add(%product, %wide)
  %top = f32[2,4]{1,0} slice(%sum), slice={[0:2], [0:4]}
  %again = f32[2,4]{1,0} slice(%product), slice={[0:2], [0:4]}
  %twice = f32[2,4]{1,0} add(%top, %again)
  %end = f32[3,4]{1,0} slice(%sum), slice={[5:8], [0:4]}
  %difference = f32[8,4]{1,0} subtract(%param_2, %param_2)
  %part = f32[1,4]{1,0} slice(%difference), slice={[0:1], [0:4]}
  ROOT %results = (f32[2,4]{1,0}, f32[3,4]{1,0}, f32[8,4]{1,0}) tuple(%twice, %end, WHOLE)
}

ENTRY %main (x: f32[8,4], y: bf16[8,4], z: f32[8,4]) -> (f32[2,4], f32[3,4], f32[8,4]) {
  %x = f32[8,4]{1,0} parameter(0)
  %y = bf16[8,4]{1,0} parameter(1)
  %z = f32[8,4]{1,0} parameter(2)
  ROOT %fused = (f32[2,4]{1,0}, f32[3,4]{1,0}, f32[8,4]{1,0}) fusion(%x, %y, %z), kind=kLoop, calls=%used
}
"""


def test_of_an_array_that_a_fusion_slices_after_operations_by_element_the_slices_count():
    """Rows 0-1 and 5-7 of x and y, each once, in the bytes of their own types; all of z, since it is also whole.

    Where the sum of x and y is a result too, all of them.
    """
    written, z = (2 + 3 + 8) * 4 * 4, 8 * 4 * 4
    assert traffic(SLICED.replace("WHOLE", "%difference")) == written + z + 5 * 4 * (4 + 2)
    assert traffic(SLICED.replace("WHOLE", "%sum")) == written + 1 * 4 * 4 + 8 * 4 * (4 + 2)


def test_slices_of_a_transposed_array_are_not_those_of_the_array():
    """A row and a column, with the same bounds in the two orders."""
    program = """
%used (param_0: f32[8,8]) -> f32[1,8] {
  %param_0 = f32[8,8]{1,0} parameter(0)
  %turned = f32[8,8]{0,1} bitcast(%param_0)
  %row = f32[1,8]{1,0} slice(%param_0), slice={[0:1], [0:8]}
  %column = f32[1,8]{0,1} slice(%turned), slice={[0:1], [0:8]}
  ROOT %sum = f32[1,8]{1,0} add(%row, %column)
}

ENTRY %main (x: f32[8,8]) -> f32[1,8] {
  %x = f32[8,8]{1,0} parameter(0)
  ROOT %fused = f32[1,8]{1,0} fusion(%x), kind=kLoop, calls=%used
}
"""
    assert traffic(program) == (8 + 8 + 8) * 4


def test_a_fusion_that_only_converts_reads_its_operand():
    program = """
%cast (param_0: f32[1024]) -> bf16[1024] {
  %param_0 = f32[1024]{0} parameter(0)
  ROOT %convert = bf16[1024]{0} convert(%param_0)
}

ENTRY %main (x: f32[1024]) -> bf16[1024] {
  %x = f32[1024]{0} parameter(0)
  ROOT %fused = bf16[1024]{0} fusion(%x), kind=kLoop, calls=%cast
}
"""
    assert traffic(program) == 1024 * (4 + 2)
