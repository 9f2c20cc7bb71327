"""The first steps of an experiment at full size, on synthetic images of the shape of its data: loss and time of a step.

    python tests/benchmarks/first_steps.py sohl_dickstein_2015/images --steps 200 --knobs data=cifar10

The images are dead leaves, one picture for each colour. It shows that an experiment whose data are not at hand can be
trained, and what that costs.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from ddpm_jax.data import Data, dead_leaves
from ddpm_jax.runs import experiment_files
from ddpm_jax.runs.train import train
from ddpm_jax.system import cpu
from ddpm_jax.training import StopRequest

EXAMPLES = 2000


class Leaves:
    """Pictures of dead leaves with this number of colours."""

    def __init__(self, shape: tuple[int, ...], num_classes: int | None):
        self._gray, self._colours, self._classes = dead_leaves(shape[0]).open("train"), shape[-1], num_classes

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        colours = [self._gray[(row + 1000 * n) % len(self._gray)]["image"] for n in range(self._colours)]
        label = {} if self._classes is None else {"label": np.int32(row % self._classes)}
        return {"image": np.concatenate(colours, axis=-1)} | label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--knobs", nargs="*", default=[], help="knobs of the experiment with text values, name=value")
    options = parser.parse_args()
    cpu.use_fast_libraries()
    function = experiment_files.read(experiment_files.find(options.experiment))
    made = experiment_files.build(function, dict(knob.split("=", 1) for knob in options.knobs))
    shape, classes = made.data.image_shape, made.data.num_classes
    data = Data("leaves", shape, lambda split: Leaves(shape, classes), made.data.levels, classes)
    every = dataclasses.replace(made.every, log=max(1, options.steps // 10), sample=0, save=0)
    made = dataclasses.replace(made, data=data, num_steps=options.steps, every=every)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        train(made, Path(folder), StopRequest())
        rows = [json.loads(row) for row in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        seconds = made.batch_size / row["images_per_second"]
        print(f"step {row['step']:6}  loss {row['loss']:.4f}  {seconds:.3f} s a step")
    print(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
