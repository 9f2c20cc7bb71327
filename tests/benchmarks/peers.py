"""Our U-Net compared with another on PyTorch: a table of ratios, ours / theirs; below one, ours is faster.

    pip install -e '.[dev,benchmark]'
    python tests/benchmarks/peers.py [--peer diffusers|lucidrains] [--sizes digits fashion cifar10] [--rounds 7]

The U-Net of diffusers is made from the same config as ours and has the same number of parameters. That of
denoising-diffusion-pytorch by lucidrains has the same widths, another design, and no likelihood to time. Each side runs
in a process of its own. Their calls alternate; the first call of each is not counted. A row is the median of the ratios
of the rounds, with the least and the greatest.

"memory" is the most memory of a process that only trains: resident during a step, or allocated on an accelerator.
"start" is the time from the start of the process to the end of the first train step: cold, where programs are compiled,
and warm, with the caches of the start before.
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
    """Config, batch size and number of sampling steps of each size; few steps for large ones, as all cost the same."""
    from ddpm_jax.networks import UNet  # here, since the side's process imports this file before its environment is set

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
    """Prints a row for each measurement."""
    if timed := [each for each in what if each in TIMED]:
        _timed_rows(peer, work, timed, rounds)
    if "memory" in what:
        _row("memory", [[_alone(side, work, ENVIRONMENT, "memory") for side in ("ours", peer)]])
    if "start" in what:
        _start_rows(peer, work, rounds=2)


def _timed_rows(peer: str, work: Work, timed: list[str], rounds: int) -> None:
    with Worker("ours", work, ENVIRONMENT) as ours, Worker(peer, work) as theirs:
        sides = (ours, theirs)
        counts = [side.measure("parameters") for side in sides]
        assert peer != "diffusers" or counts[0] == counts[1], f"{counts[0]} parameters, theirs {counts[1]}"
        both = [f"{side.measure('description')}, {count:,}" for side, count in zip(sides, counts, strict=True)]
        print(f"{' / '.join(both)} parameters; batch {work.batch}, {work.dtype}", flush=True)
        for each in timed:
            pairs = [[side.measure(each) for side in sides] for _ in range(1 + rounds)]
            _row(each, pairs[1:])


def _row(name: str, pairs: list[list[float]]) -> None:
    ratios = sorted(a / b for a, b in pairs)
    size, unit = (2**20, "MiB") if name == "memory" else (1, "s")
    ours, theirs = (statistics.median(column) / size for column in zip(*pairs, strict=True))
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"  {name:12} {ours:10.4f} / {theirs:10.4f} {unit} = {ratio}", flush=True)


def _start_rows(peer: str, work: Work, rounds: int) -> None:
    """Prints a row for the first start, which compiles all programs, and for the second."""
    pairs: dict[str, list[list[float]]] = {"start, cold": [], "start, warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as kept:
            caches = {"JAX_COMPILATION_CACHE_DIR": kept, "TORCHINDUCTOR_CACHE_DIR": kept}
            for row in pairs.values():
                row.append([_alone(side, work, ENVIRONMENT | caches, "first") for side in ("ours", peer)])
    for name, row in pairs.items():
        _row(name, row)


def _alone(module: str, work: Work, environment: dict[str, str], what: str) -> float:
    """The measurement in a process that measures nothing else."""
    with Worker(module, work, environment) as side:
        return side.measure(what)


def main(
    peer: Literal["diffusers", "lucidrains"] = "diffusers",
    sizes: tuple[Size, ...] = ("digits", "fashion", "cifar10"),
    rounds: int = 7,
    dtype: Literal["float32", "bfloat16"] = "float32",
    compile: bool = True,
    batch: int | None = None,
    what: tuple[What, ...] | None = None,
) -> None:
    """Prints a table for each size.

    Args:
        peer: library to compare with.
        sizes: networks to measure.
        rounds: number of timed rounds.
        dtype: type that the networks compute in.
        compile: use torch.compile.
        batch: batch size. Default: that of the size.
        what: measurements. Default: all that the peer has.
    """
    configs = networks()
    everything = tuple(each for each in (*TIMED, "memory", "start") if (peer, each) != ("lucidrains", "bits"))
    for name in sizes:
        config, default, steps = configs[name]
        print(f"{name}: ", end="")
        compare(peer, Work(config, batch or default, steps, dtype, compile), what or everything, rounds)


if __name__ == "__main__":
    tyro.cli(main)
