"""The compilers of TPUs and GPUs, which compile a program for devices that this machine need not have.

XLA compiles ahead of time for a topology, a description of devices: the compiler of the real device runs, with its
assignment of memory, its fusions and its collectives. Nothing is executed.
"""

import importlib.util
import math
import os
import re
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from ddpm_jax.runs.accelerators import Accelerator
from ddpm_jax.runs.costs import collectives, traffic

TPU_SHAPES = {
    2: ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)),
    3: ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16)),
}
"""The shapes of slices of TPUs whose chips are connected in two and in three dimensions."""
WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}
"""Environment variables in place of the metadata that libtpu asks a cloud machine for. Any type serves any topology."""
GPUS_A_HOST = 8
_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: {shared_memory_per_core}
  shared_memory_per_block_optin: {shared_memory_per_block_optin}
  core_count: {cores} fpus_per_core: {fpus_per_core} clock_rate_ghz: {clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: {bandwidth} l2_cache_size: {l2_cache} device_memory_size: {memory}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability {{ major: {capability} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""


class Compiled(NamedTuple):
    """What the compiler of an accelerator makes of a program. Bytes are those of one device."""

    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    """The part of the outputs that takes the place of donated arguments."""
    temporary_bytes: int
    traffic_bytes: float
    """Bytes that the kernels read from and write to the memory of the device, each operand and each result once."""
    collectives: Mapping[str, tuple[int, int]]
    """Kind -> (number of messages, bytes of their results). Those in a loop count in each of its rounds."""
    compile_seconds: float

    @property
    def total_bytes(self) -> int:
        """The memory that a device needs for the program."""
        return self.argument_bytes + self.output_bytes - self.alias_bytes + self.temporary_bytes


def devices(accelerator: Accelerator, count: int) -> list[Any]:
    """This number of devices of this kind, for which JAX can compile. Raises ValueError, which names what to install.

    TPUs are those of the smallest slice that has as many; GPUs are in hosts of eight.
    """
    _check_installed(accelerator)
    if accelerator.dimensions is None:
        hosts = (1, count) if count <= GPUS_A_HOST else (-(-count // GPUS_A_HOST), GPUS_A_HOST)
        shape = f"1x{hosts[0]}x{hosts[1]}"
        options = {"platform": "cuda", "topology": shape, "target_config": _gpu(accelerator.name)}
        return _topology(accelerator, shape, **options)[:count]
    fitting = [shape for shape in TPU_SHAPES[accelerator.dimensions] if math.prod(shape) >= count]
    if not fitting:
        raise ValueError(f"no slice of {accelerator.name} has {count} chips: plan for fewer")
    name = f"{accelerator.name}:{'x'.join(map(str, fitting[0]))}"
    for variable, value in WITHOUT_TPU.items():
        os.environ.setdefault(variable, value)
    cores = {"chip_config_name": "megacore"} if accelerator.name == "v4" else {}  # the two cores of a chip as a device
    return _topology(accelerator, name, platform="tpu", **cores)[:count]


def _topology(accelerator: Accelerator, name: str, **options: Any) -> list[Any]:
    """The devices of a topology. Raises ValueError if the compiler cannot start, as where another process has it."""
    try:
        return list(topologies.get_topology_desc(name, **options).devices)
    except NotImplementedError as error:  # JAX has not loaded the plugin, since it found no driver
        reason = (
            f"the compiler for {accelerator.name} was not loaded: set JAX_PLATFORMS=cpu where there is no such device"
        )
        raise ValueError(f"--compile: {reason}") from error
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"--compile: the compiler for {accelerator.name} cannot start: {reason}") from error


def _check_installed(accelerator: Accelerator) -> None:
    module, extra = ("jax_plugins.xla_cuda13", "gpu") if accelerator.dimensions is None else ("libtpu", "tpu")
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise ValueError(f"--compile for {accelerator.name}: its compiler is missing: pip install 'ddpm_jax[{extra}]'")


def _gpu(name: str) -> str:
    """The description of a GPU as XLA reads it."""
    return _GPU.format(**tomllib.loads((Path(__file__).with_name("gpus.toml")).read_text())[name])


def compiled(lowered: Any, accelerator: Accelerator) -> Compiled:
    """Compiles a function that was lowered for `devices` of this accelerator.

    Raises ValueError with the compiler's reason, the operation and its place in the source, if it cannot be compiled.
    """
    options = {"xla_gpu_autotune_level": 0} if accelerator.dimensions is None else None  # there is no GPU to try on
    started = time.monotonic()
    try:
        program = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"the program cannot be compiled for {accelerator.name}: {_reason(str(error))}") from error
    seconds = time.monotonic() - started
    memory, text = program.memory_analysis(), program.as_text()
    return Compiled(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        traffic(text),
        collectives(text),
        seconds,
    )


def _reason(message: str) -> str:
    """The first line of a compiler's message, and the operation and the line of source code that it names.

    Compilers for TPUs refuse a program that needs more memory than the device has.
    """
    named = re.search(r'op_name="([^"]*)"(?:.*?source_file="([^"]*)" source_line=(\d+))?', message, re.DOTALL)
    place = "" if named is None else f" (at {named[1]}" + (f", {named[2]}:{named[3]})" if named[2] else ")")
    way_out = "; to need less memory: --remat, --accumulate, a smaller --batch-size, or more devices in --mesh"
    return message.strip().splitlines()[0][:300] + place + (way_out if "RESOURCE_EXHAUSTED" in message else "")
