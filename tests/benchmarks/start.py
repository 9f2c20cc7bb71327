"""Time of the import, and from the start of `ddpm-jax train` to the end of its first step, cold and warm.

    python tests/benchmarks/start.py [--experiment digits] [--rounds 3] [--knobs --batch-size 64]

A cold start compiles all programs; a warm one finds those that the cold one has cached. Each is a new run.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tyro

IMPORTS = {
    "jax": "import jax",
    "ddpm_jax": "import jax, ddpm_jax",
    "its public names": "import jax, ddpm_jax; ddpm_jax.load",
}


def import_seconds(code: str) -> float:
    """Seconds of a Python process that executes only this code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def first_step(experiment: str, knobs: tuple[str, ...], cache: Path) -> float:
    """Seconds from the start of the command to the first row of its log."""
    with tempfile.TemporaryDirectory() as name:
        log = Path(name, "run", "metrics.jsonl")
        options = ["--workdir", str(log.parent), "--log-every", "1", *knobs]
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-m", "ddpm_jax", "train", experiment, *options],
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
            stdout=subprocess.DEVNULL,
        ) as process:
            while not (log.exists() and log.stat().st_size):
                if process.poll():
                    sys.exit(f"train ended with status {process.returncode}")
                time.sleep(0.02)
            seconds = time.perf_counter() - start
            process.kill()
    return seconds


def main(experiment: str = "digits", rounds: int = 3, knobs: tuple[str, ...] = ()) -> None:
    """Prints medians.

    Args:
        experiment: experiment that is trained.
        rounds: number of rounds.
        knobs: its knobs, as on the command line.
    """
    times = {name: [import_seconds(code) for _ in range(1 + rounds)][1:] for name, code in IMPORTS.items()}
    for name, seconds in times.items():
        more = statistics.median(seconds) - statistics.median(times["jax"])
        print(f"import of {name:16} {statistics.median(seconds):6.2f} s, {more:+.2f} s", flush=True)
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append([first_step(experiment, knobs, Path(cache)) for _ in range(2)])
    ratios = sorted(second / first for first, second in pairs)
    cold, warm = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    print(f"first step of train {experiment}: {cold:.1f} s, from the cache {warm:.1f} s = {ratio}")


if __name__ == "__main__":
    tyro.cli(main)
