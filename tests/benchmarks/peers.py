"""Our U-Net beside that of another library, on PyTorch: a table of ratios, ours / theirs; below one, ours is faster.

    pip install -e '.[dev,benchmark]'
    python tests/benchmarks/peers.py [--peer diffusers|lucidrains] [--sizes digits fashion cifar10] [--rounds 7]

That of diffusers is made from the same config as ours and has the same number of parameters; the one of lucidrains'
denoising-diffusion-pytorch has the same widths, another design, and no likelihood to be timed. Each side runs in a
process of its own; their calls alternate, each after one that is not counted. A row is the median of the rounds'
ratios, with the least and the greatest. "memory" is the most that a process which does nothing but train has resident
during a step, or has allocated on an accelerator; "start" the time from the start of the process to the end of the
first train step, with programs compiled anew and with those kept from the start before.
"""

import statistics
import tempfile
from typing import Any, Literal

import tyro
from sides import Work, Worker

ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
TIMED = ("forward", "train", "sample_one", "sample_batch", "ddim_batch", "bits")
Size = Literal["digits", "fashion", "cifar10"]
What = Literal["forward", "train", "sample_one", "sample_batch", "ddim_batch", "bits", "memory", "start"]


def networks() -> dict[str, tuple[dict[str, Any], int, int]]:
    """The config, the batch, and the steps that are sampled: of the larger ones few, since each step costs the same."""
    from ddpm_jax.networks import UNet  # here, since each side imports this file before it is printed its environment

    digits = UNet(width=32, multipliers=(1, 2), num_blocks=1, attention=(4,), dropout=0.0, groups=8)
    fashion = UNet(width=64, multipliers=(1, 2, 2), dropout=0.0)
    return {
        "digits": (_config(digits, (8, 8, 1)), 64, 1000),
        "fashion": (_config(fashion, (32, 32, 1)), 16, 50),
        "cifar10": (_config(UNet(dropout=0.0), (32, 32, 3)), 4, 10),
    }


def _config(network: Any, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    from ddpm_jax.interop import unets

    fields = {name: getattr(network, name) for name in network.__dataclass_fields__ if name not in ("parent", "name")}
    config = unets.to_config(fields, image_shape)
    return {name: value for name, value in config.items() if not name.startswith("_")}


def compare(peer: str, work: Work, what: tuple[str, ...], rounds: int) -> None:
    """Prints a row for each thing that is timed."""
    if timed := [each for each in what if each in TIMED]:
        with Worker("ours", work, ENVIRONMENT) as ours, Worker(peer, work) as theirs:
            counts = [side.ask("parameters") for side in (ours, theirs)]
            assert peer != "diffusers" or counts[0] == counts[1], f"{counts[0]} parameters, theirs {counts[1]}"
            printed = " / ".join(
                f"{side.ask('printed')}, {count:,}" for side, count in zip((ours, theirs), counts, strict=True)
            )
            print(f"{printed} parameters; batch {work.batch}, {work.dtype}", flush=True)
            for each in timed:
                pairs = [[side.ask(each) for side in (ours, theirs)] for _ in range(1 + rounds)]
                _row(each, pairs[1:])
    if "memory" in what:
        _row("memory", [[_alone(side, work, ENVIRONMENT, "memory") for side in ("ours", peer)]])
    if "start" in what:
        _starts(peer, work, rounds=2)


def _row(name: str, pairs: list[list[float]]) -> None:
    ratios = sorted(a / b for a, b in pairs)
    size, unit = (2**20, "MiB") if name == "memory" else (1, "s")
    ours, theirs = (statistics.median(column) / size for column in zip(*pairs, strict=True))
    printed = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"  {name:12} {ours:10.4f} / {theirs:10.4f} {unit} = {printed}", flush=True)


def _starts(peer: str, work: Work, rounds: int) -> None:
    """Rows for the first start, whose programs are compiled anew, and for the second."""
    pairs: dict[str, list[list[float]]] = {"start, cold": [], "start, warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as kept:
            caches = {"JAX_COMPILATION_CACHE_DIR": kept, "TORCHINDUCTOR_CACHE_DIR": kept}
            for row in pairs.values():
                row.append([_alone(side, work, ENVIRONMENT | caches, "first") for side in ("ours", peer)])
    for name, row in pairs.items():
        _row(name, row)


def _alone(module: str, work: Work, environment: dict[str, str], what: str) -> float:
    """The answer of a process that is asked for nothing else."""
    with Worker(module, work, environment) as side:
        return side.ask(what)


def main(
    peer: Literal["diffusers", "lucidrains"] = "diffusers",
    sizes: tuple[Size, ...] = ("digits", "fashion", "cifar10"),
    rounds: int = 7,
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: bool = True,
    batch: int | None = None,
    what: tuple[What, ...] | None = None,
) -> None:
    """Prints a table for each size."""
    made = networks()
    everything = tuple(each for each in (*TIMED, "memory", "start") if (peer, each) != ("lucidrains", "bits"))
    for name in sizes:
        config, default, steps = made[name]
        print(f"{name}: ", end="")
        compare(peer, Work(config, batch or default, steps, dtype, compile), what or everything, rounds)


if __name__ == "__main__":
    tyro.cli(main)
