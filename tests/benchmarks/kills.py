"""kill -9 at random moments of train, sample and evaluate: each ends in the same bytes as without a kill.

    python tests/benchmarks/kills.py --num 50

Prints a table of the kills by command. Exit status 1 if a result differs.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TINY = Path(__file__).parents[1] / "experiments" / "tiny.py"
TRAIN = ("--num-steps", "400", "--save-every", "20")


def start(*command: str) -> subprocess.Popen:
    """The command in a process of its own, on one device."""
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.Popen(
        [sys.executable, "-m", "ddpm_jax", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def finish(*command: str) -> float:
    """Runs the command to its end; returns the seconds that it took. Raises RuntimeError if it fails."""
    begun, process = time.perf_counter(), start(*command)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}: {errors.decode()[-500:]}")
    return time.perf_counter() - begun


def kill(seconds: float, *command: str) -> bool:
    """Starts the command and kills it after this time; returns whether it was still running."""
    process = start(*command)
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True


def trained(run: Path) -> list[bytes]:
    """The parameters, averages and optimizer state in the newest checkpoint, and the log without its speeds."""
    import json

    import jax

    import ddpm_jax

    leaves = [leaf for weights in ("ema", "raw") for leaf in jax.tree.leaves(ddpm_jax.load(run, weights).params)]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [bytes(jax.device_get(leaf)) for leaf in leaves] + [f"{row['step']} {row['loss']}".encode() for row in rows]


def files(folder: Path) -> list[bytes]:
    """The names and contents of the files in the folder."""
    return [path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def trial(
    num: int,
    draw: random.Random,
    command: Callable[[Path], list[str]],
    result: Callable[[Path], list[bytes]],
    folder: Path,
):
    """(kills that hit a running process, whether the result is that of a command that was never killed)."""
    whole, killed = folder / "whole", folder / "killed"
    seconds = finish(*command(whole))
    hits = sum(kill(draw.uniform(0.2, 1.0) * seconds, *command(killed)) for _ in range(num))
    finish(*command(killed))
    return hits, result(whole) == result(killed)


def main() -> int:
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num", type=int, default=50, help="number of kills of all commands together")
    parser.add_argument("--seed", type=int, default=0, help="seed of their moments")
    options = parser.parse_args()
    draw, bad = random.Random(options.seed), False
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        finish("train", str(TINY), "--workdir", str(base / "run"))
        for each in ("whole", "killed"):
            shutil.copytree(base / "run", base / "evaluate" / each)
        trials = {
            "train": (lambda out: ["train", str(TINY), "--workdir", str(out), *TRAIN], trained),
            "sample --out folder": (
                lambda out: ["sample", str(base / "run"), "--num", "600", "--out", str(out)],
                files,
            ),
            "evaluate": (
                lambda out: ["evaluate", str(out), "--batch-size", "4"],
                lambda out: [(out / "evaluation.json").read_bytes()],
            ),
        }
        print("| command | killed while running | result |\n|---|---|---|")
        for number, (title, (command, result)) in enumerate(trials.items()):
            share = options.num // 3 + (number < options.num % 3)
            hits, same = trial(share, draw, command, result, base / title.split()[0])
            bad |= not same
            print(f"| `{title}` | {hits} of {share} | {'identical' if same else 'DIFFERENT'} |", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
