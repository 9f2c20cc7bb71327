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
from typing import NamedTuple

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
    """The parameters and averages in the newest checkpoint, and the log without its speeds."""
    import json

    import jax

    import ddpm_jax

    leaves = [leaf for weights in ("ema", "raw") for leaf in jax.tree.leaves(ddpm_jax.load(run, weights).params)]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [bytes(jax.device_get(leaf)) for leaf in leaves] + [
        f"{row['step']} {row.get('loss')} {row.get('bpd')}".encode() for row in rows
    ]


def files(folder: Path) -> list[bytes]:
    """The names and contents of the files in the folder."""
    return [path.name.encode() + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


class Trial(NamedTuple):
    """A command that is killed, and what must not depend on that."""

    command: Callable[[Path], list[str]]
    """``command(output)`` -> the arguments of the command."""
    result: Callable[[Path], list[bytes]]
    """``result(output)`` -> what is compared."""


def run(trial: Trial, folder: Path, num: int, draw: random.Random) -> tuple[int, bool]:
    """(outputs that were finished after kills, whether each is that of a command that was never killed).

    Each kill hits a process that has not finished its output: where one finishes before its kill, the next output is
    begun.
    """
    whole, count, kills, same = folder / "whole", 0, 0, True
    seconds = finish(*trial.command(whole))
    while kills < num:
        killed = folder / f"killed{count}"
        while kills < num and kill(draw.uniform(0.2, 1.1) * seconds, *trial.command(killed)):
            kills += 1
        finish(*trial.command(killed))
        count, same = count + 1, same and trial.result(whole) == trial.result(killed)
    return count, same


def trials(base: Path) -> dict[str, Trial]:
    """The commands, by title; `base` holds a finished run and copies of it."""
    finished = str(base / "run")
    return {
        "train": Trial(lambda out: ["train", str(TINY), "--workdir", str(out), *TRAIN], trained),
        "sample --out folder": Trial(lambda out: ["sample", finished, "--num", "600", "--out", str(out)], files),
        "evaluate": Trial(lambda out: ["evaluate", str(copied(base / "run", out)), "--batch-size", "4"], record),
    }


def copied(run: Path, folder: Path) -> Path:
    """The folder, which is a copy of the run if it does not exist yet."""
    return folder if folder.exists() else Path(shutil.copytree(run, folder))


def record(run: Path) -> list[bytes]:
    """The measurements of a run."""
    return [(run / "evaluation.json").read_bytes()]


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
        print("| command | kills | finished outputs | result |\n|---|---:|---:|---|")
        for number, (title, trial) in enumerate(trials(base).items()):
            share = options.num // 3 + (number < options.num % 3)
            count, same = run(trial, base / title.split()[0], share, draw)
            bad |= not same
            print(f"| `{title}` | {share} | {count} | {'identical' if same else 'DIFFERENT'} |", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
