"""Each shipped experiment at full size, compiled for a v5e-16 and for eight H100: the rows of a Markdown table.

    pip install -e '.[tpu,gpu,dev]'
    JAX_PLATFORMS=cpu python tests/benchmarks/fleet.py [--accelerators v5e H100] [--only ho_2020/cifar10]

The compilers run without these devices; 256x256 takes minutes. "tests" is to be on the path of modules
(`PYTHONPATH=tests`).
"""

import itertools
from typing import Literal

import tyro
from shipped import SHIPPED, Shipped

from ddpm_jax.runs.accelerators import named
from ddpm_jax.runs.device_plan import ProgramCost, device_plan
from ddpm_jax.runs.requests import Placement

HEADER = (
    "| experiment | mesh | program | memory a device | messages a device | roofline | share of peak | compiled in |"
)


def row(shipped: Shipped, mesh: str, cost: ProgramCost) -> str:
    """The row of a program."""
    made = cost.compiled
    sent = [f"{count} {kind}, {size / 2**20:.3g} MiB" for kind, (count, size) in made.collectives.items()]
    memory = f"{made.total_bytes / 2**30:.3g} GiB" + ("" if cost.fits else ": does not fit")
    cells = (
        f"`{shipped.command()}`",
        f"{cost.accelerator}, {mesh}" if cost.devices > 1 else f"one {cost.accelerator}",
        f"{cost.program}, {cost.images} images",
        memory,
        "; ".join(sent) or "none",
        f"{cost.seconds:.3g} s",
        f"{cost.compute_seconds / cost.seconds:.0%}",
        f"{made.compile_seconds:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def main(accelerators: tuple[Literal["v5e", "H100"], ...] = ("v5e", "H100"), only: str = "", programs: int = 2) -> None:
    """Prints the table.

    Args:
        accelerators: devices to compile for.
        only: a part of the command; only experiments that contain it are compiled.
        programs: number of programs of each: train step, sampler, bound.
    """
    print(HEADER + "\n" + "|---" * 8 + "|", flush=True)
    for name, each in itertools.product(accelerators, SHIPPED):
        if only not in each.command() or name not in each.meshes:
            continue
        costs = device_plan(each.build(), Placement(mesh=each.meshes[name]), named(name))
        try:
            for cost in itertools.islice(costs, programs):
                print(row(each, each.meshes[name], cost), flush=True)
        except ValueError as error:
            print(f"| `{each.command()}` | {name} | {error} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
