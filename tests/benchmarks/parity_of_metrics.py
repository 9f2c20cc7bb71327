"""How far the metrics are from torch-fidelity's and pytorch-fid's, with one random state dict: a table in Markdown.

    python tests/benchmarks/parity_of_metrics.py --num 128

Needs torch, torch-fidelity and pytorch-fid. The images are smooth noise of 64 x 64 in two distributions. The distances
are from features of the own network here and of the other network there; from the same features in the last column.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))

import published
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from ddpm_jax.metrics import extract, frechet_distance, inception, inception_score, kid_subsets, shares

State = dict[str, torch.Tensor]


def main(num: int = 128) -> None:
    state = published.state_dict()
    sets = [images(seed, num) for seed in (0, 1)]
    params = inception.params_from_torch({name: value.numpy() for name, value in state.items()})
    theirs = fidelity(state, sets)
    ours = [extract(inception.extractor(params), [some], batch=16) for some in sets]
    print("| number | torch-fidelity | ours | difference | from the same features |\n|---|---|---|---|---|")
    for which, name in enumerate(("features", "logits")):
        a, b = (np.concatenate([some[which] for some in them]) for them in (theirs, [(x.pool, x.logits) for x in ours]))
        print(f"| {name}, largest | {np.abs(a).max():.6g} | {np.abs(b).max():.6g} | {np.abs(a - b).max():.1e} | |")
    own = numbers(*[(some.pool, some.logits) for some in ours])
    for (name, a), b, c in zip(others(*theirs).items(), own, numbers(*theirs), strict=True):
        print(f"| {name} | {a:.7g} | {b:.7g} | {abs(a - b):.1e} | {abs(a - c):.1e} |")
    fid(state, sets, [extract(inception.extractor(params, "pytorch"), [some], batch=16).pool for some in sets])


def images(seed: int, num: int) -> np.ndarray:
    """Noise on three scales, brighter in the second set."""
    random = np.random.default_rng(seed)
    parts = [
        np.kron(random.integers(0, 75, (num, 64 // size, 64 // size, 3)), np.ones((1, size, size, 1)))
        for size in (1, 8, 32)
    ]
    return (sum(parts) + 20 * seed).astype(np.uint8)


def in_parts(function: Callable, some: np.ndarray) -> list:
    with torch.no_grad():
        return [function(torch.from_numpy(part.transpose(0, 3, 1, 2).copy())) for part in np.array_split(some, 8)]


def fidelity(state: State, sets: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    with tempfile.TemporaryDirectory() as folder:
        network = published.torch_fidelity(state, Path(folder))
    found = [zip(*in_parts(network, some), strict=True) for some in sets]
    return [tuple(torch.cat(parts).numpy() for parts in some) for some in found]  # type: ignore[misc]


def fid(state: State, sets: list[np.ndarray], ours: list[np.ndarray]) -> None:
    network = published.pytorch_fid(state)
    theirs = [torch.cat(in_parts(lambda x: network(x / 255)[0][:, :, 0, 0], some)).numpy() for some in sets]
    difference = max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))
    print(f"| pytorch-fid: features, largest | {np.max(theirs):.6g} | {np.max(ours):.6g} | {difference:.1e} | |")
    moments = [value for some in theirs for value in (some.mean(axis=0), np.cov(some, rowvar=False))]
    a, b, c = float(calculate_frechet_distance(*moments)), frechet_distance(*ours), frechet_distance(*theirs)
    print(f"| pytorch-fid: FID | {a:.7g} | {b:.7g} | {abs(a - b):.1e} | {abs(a - c):.1e} |")


def others(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    x, y = torch.from_numpy(a[0]), torch.from_numpy(b[0])
    statistics = [metric_fid.fid_features_to_statistics(some) for some in (x, y)]
    size = len(x) // 2
    kid = metric_kid.kid_features_to_metric(x, y, kid_subset_size=size, kid_subsets=20, verbose=False)
    prc = metric_prc.prc_features_to_metric(x, y, verbose=False)
    return {
        "FID": metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"],
        "KID": kid["kernel_inception_distance_mean"],
        "Inception Score": metric_isc.isc_features_to_metric(torch.from_numpy(a[1]))["inception_score_mean"],
        "precision": prc["precision"],
        "recall": prc["recall"],
    }


def numbers(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> list[float]:
    found = shares(a[0], b[0])
    kid = kid_subsets(a[0], b[0], subsets=20, size=len(a[0]) // 2).mean
    score = inception_score(a[1]).mean
    return [frechet_distance(a[0], b[0]), kid, score, found.precision.value, found.recall.value]


if __name__ == "__main__":
    tyro.cli(main)
