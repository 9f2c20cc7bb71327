"""How far the metrics are from torch-fidelity's and pytorch-fid's, with one random state dict: a table in Markdown.

    python tests/benchmarks/parity_of_metrics.py --num 128
    taskset -c 1 python tests/benchmarks/parity_of_metrics.py --images fashion_mnist --num 320

Needs torch, torch-fidelity and pytorch-fid. The images are smooth noise of 64 x 64 in two distributions, or those of
the two splits of Fashion-MNIST, 32 x 32: padded by two black pixels, with three equal channels. The distances are from
features of the own network here and of the other network there; from the same features in the last column.

The two networks compute features by turns, each in batches of the same images after one batch that is not counted.
The times are CPU seconds of this process: on one core they are those of an idle machine, up to its caches.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

import published
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from ddpm_jax.data import load, tfds_images
from ddpm_jax.metrics import extract, frechet_distance, inception, inception_score, kid_subsets, shares
from ddpm_jax.system.cpu import use_fast_libraries

BATCH = 16
SPLITS = ("train", "test")
State = dict[str, torch.Tensor]
Vectors = tuple[np.ndarray, np.ndarray]
"""Features [num, 2048] and logits [num, 1008]."""


def main(
    images: Literal["noise", "fashion_mnist"] = "noise", num: int = 128, rounds: int = 5, pytorch_fid: bool = True
) -> None:
    """Prints the tables for `num` images of each of two sets, whose features are computed in `rounds` parts."""
    use_fast_libraries()
    state = published.state_dict()
    both = [noise(seed, num) if images == "noise" else clothes(split, num) for seed, split in enumerate(SPLITS)]
    theirs, ours = in_turn(fidelity(state), own(state), np.concatenate(both), rounds)
    print("| number | torch-fidelity | ours | difference | from the same features |\n|---|---|---|---|---|")
    for name, a, b in zip(("features", "logits"), theirs, ours, strict=True):
        print(f"| {name}, largest | {np.abs(a).max():.6g} | {np.abs(b).max():.6g} | {np.abs(a - b).max():.1e} | |")
    print(f"| features, spread over mean | {spread(theirs[0]):.4g} | {spread(ours[0]):.4g} | | |")
    theirs, ours = ([(a[:num], b[:num]), (a[num:], b[num:])] for a, b in (theirs, ours))
    for (name, a), b, c in zip(others(*theirs).items(), numbers(*ours), numbers(*theirs), strict=True):
        print(f"| {name} | {a:.7g} | {b:.7g} | {abs(a - b):.1e} | {abs(a - c):.1e} |")
    if pytorch_fid:
        fid(state, both)


def noise(seed: int, num: int) -> np.ndarray:
    """Noise on three scales, brighter in the second set."""
    random = np.random.default_rng(seed)
    parts = [
        np.kron(random.integers(0, 75, (num, 64 // size, 64 // size, 3)), np.ones((1, size, size, 1)))
        for size in (1, 8, 32)
    ]
    return (np.sum(parts, axis=0) + 20 * seed).astype(np.uint8)


def clothes(split: str, num: int) -> np.ndarray:
    """The first images of a split of Fashion-MNIST, which TFDS has in random order."""
    found = load(tfds_images("fashion_mnist", (28, 28, 1)).open(split), range(num))["image"]
    return np.repeat(np.pad(found, ((0, 0), (2, 2), (2, 2), (0, 0))), 3, axis=-1)


def spread(features: np.ndarray) -> float:
    """How much the images differ: the standard deviation of a feature over the images, relative to the mean."""
    return float(features.std(axis=0).mean() / features.mean())


def in_turn(
    theirs: Callable[[np.ndarray], Vectors], ours: Callable[[np.ndarray], Vectors], images: np.ndarray, rounds: int
) -> tuple[Vectors, Vectors]:
    """The vectors of all images by both; prints how long they take."""
    firsts = [timed(function, images[:BATCH])[1] for function in (theirs, ours)]
    found = [[timed(function, part) for function in (theirs, ours)] for part in np.array_split(images, rounds)]
    seconds = np.array([[time for _, time in row] for row in found])
    each, ratios = 1000 * seconds.sum(axis=0) / len(images), seconds[:, 1] / seconds[:, 0]
    print(
        f"{len(images)} images in {rounds} rounds: {each[0]:.0f} ms an image by torch-fidelity, {each[1]:.0f} by ours;"
    )
    print(f"ratio {statistics.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}).")
    print(f"The first {BATCH} images took {firsts[0]:.1f} s and, with the compilation, {firsts[1]:.1f} s.\n")
    return joined([row[0][0] for row in found]), joined([row[1][0] for row in found])


def timed(function: Callable[[np.ndarray], Vectors], images: np.ndarray) -> tuple[Vectors, float]:
    start = time.process_time()
    return function(images), time.process_time() - start


def joined(parts: list[Vectors]) -> Vectors:
    features, logits = zip(*parts, strict=True)
    return np.concatenate(features), np.concatenate(logits)


def own(state: State) -> Callable[[np.ndarray], Vectors]:
    extractor = inception.extractor(params(state))

    def function(images: np.ndarray) -> Vectors:
        found = extract(extractor, [images], batch=BATCH)
        return found.pool, found.logits

    return function


def params(state: State) -> dict:
    return inception.params_from_torch({name: value.numpy() for name, value in state.items()})


def fidelity(state: State) -> Callable[[np.ndarray], Vectors]:
    with tempfile.TemporaryDirectory() as folder:
        network = published.torch_fidelity(state, Path(folder))
    return lambda images: joined([tuple(part.numpy() for part in some) for some in in_parts(network, images)])


def in_parts(function: Callable, images: np.ndarray) -> list:
    parts = (images[first : first + BATCH].transpose(0, 3, 1, 2) for first in range(0, len(images), BATCH))
    with torch.no_grad():
        return [function(torch.from_numpy(part.copy())) for part in parts]


def fid(state: State, sets: list[np.ndarray]) -> None:
    ours = [extract(inception.extractor(params(state), "pytorch"), [some], batch=BATCH).pool for some in sets]
    network = published.pytorch_fid(state)
    theirs = [torch.cat(in_parts(lambda x: network(x / 255)[0][:, :, 0, 0], some)).numpy() for some in sets]
    difference = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    print(f"| pytorch-fid: features, largest | {np.max(theirs):.6g} | {np.max(ours):.6g} | {difference:.1e} | |")
    moments = [value for some in theirs for value in (some.mean(axis=0), np.cov(some, rowvar=False))]
    a, b, c = float(calculate_frechet_distance(*moments)), frechet_distance(*ours), frechet_distance(*theirs)
    print(f"| pytorch-fid: FID | {a:.7g} | {b:.7g} | {abs(a - b):.1e} | {abs(a - c):.1e} |")


def others(a: Vectors, b: Vectors) -> dict[str, float]:
    x, y = torch.from_numpy(a[0]), torch.from_numpy(b[0])
    moments = [metric_fid.fid_features_to_statistics(some) for some in (x, y)]
    size = len(x) // 2
    kid = metric_kid.kid_features_to_metric(x, y, kid_subset_size=size, kid_subsets=20, verbose=False)
    prc = metric_prc.prc_features_to_metric(x, y, verbose=False)
    return {
        "FID": metric_fid.fid_statistics_to_metric(*moments, verbose=False)["frechet_inception_distance"],
        "KID": kid["kernel_inception_distance_mean"],
        "Inception Score": metric_isc.isc_features_to_metric(torch.from_numpy(a[1]))["inception_score_mean"],
        "precision": prc["precision"],
        "recall": prc["recall"],
    }


def numbers(a: Vectors, b: Vectors) -> list[float]:
    found = shares(a[0], b[0])
    kid = kid_subsets(a[0], b[0], subsets=20, size=len(a[0]) // 2).mean
    score = inception_score(a[1]).mean
    return [frechet_distance(a[0], b[0]), kid, score, found.precision.value, found.recall.value]


if __name__ == "__main__":
    tyro.cli(main)
