"""Relations between figures that the papers of the fast samplers report, and whether they hold for a model of ours.

Each is decided by the figures of the records, not by hand.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

Read = Callable[[str], dict[str, Any]]
"""The record of a study of the model by its name, such as "bounds"; that of the run itself for an empty name."""
Found = tuple[str, str]
"""Our figures, and whether the relation holds."""
SONG, NICHOL = "Song et al. 2021", "Nichol & Dhariwal 2021"
WATSON, BAO = "Watson et al. 2021, by Bao et al. 2022", "Bao et al. 2022"


class Relation(NamedTuple):
    """A relation between figures of a paper."""

    paper: str
    claim: str
    theirs: str
    found: Callable[[Read], Found]


class Bounds:
    """Bits/dim of the models of few steps."""

    def __init__(self, read: Read, name: str):
        made = read(name)
        self.bits = {(each["variance"], each["spacing"], each["steps"]): each["bits"][0] for each in made["study"]}
        self.steps = sorted({steps for _, _, steps in self.bits})
        self.few = self.steps[:-1]


def distances(read: Read, *names: str) -> dict[tuple[str, float | None, int], float]:
    """Frechet distances by sampler, eta and number of steps."""
    points = [point for name in names for point in read(name)["study"]]
    return {(each["sampler"], each.get("eta"), each["steps"]): each["distance"] for each in points}


def rising(values: Iterable[float]) -> bool:
    """Whether each value exceeds the one before."""
    return all(a < b for a, b in itertools.pairwise(values))


def verdict(holds: bool) -> str:
    return "yes" if holds else "**no**"


def decided(checks: Sequence[tuple[int, bool]]) -> str:
    """Yes, no, or the numbers of steps for which the relation holds."""
    good = [count for count, holds in checks if holds]
    if len(good) in (0, len(checks)):
        return verdict(bool(good))
    return f"in part: at {', '.join(map(str, good))} of {', '.join(str(count) for count, _ in checks)} steps"


def listed(values: Iterable[float], digits: int = 3) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def eta(read: Read) -> Found:
    found, steps = distances(read, "sweep_eta"), (5, 10, 20)
    rows = {count: [found["ddim", value, count] for value in (0.0, 0.5, 1.0)] for count in steps}
    return f"10 steps: {listed(rows[10])}", decided([(count, rising(row)) for count, row in rows.items()])


def sigma_hat(read: Read) -> Found:
    found = distances(read, "sweep_eta")
    pairs = {count: (found["ddim", 1.0, count], found["ancestral", None, count]) for count in (5, 10, 20)}
    return f"10 steps: {listed(pairs[10])}", decided([(count, rising(pair)) for count, pair in pairs.items()])


def many_steps(read: Read) -> Found:
    found = distances(read, "sweep_even", "sweep_ancestral")
    ours = [found["ancestral", None, 1000], found["ddim", None, 50]]
    return listed(ours), verdict(rising(ours))


def more_steps(read: Read) -> Found:
    found = distances(read, "sweep_even")
    rows = {name: [found[name, None, count] for count in (50, 20, 10, 5)] for name in ("ddim", "ancestral")}
    here = f"`ddim` in 10, 20 and 50 steps {listed(rows['ddim'][2::-1])}"
    return here, verdict(all(map(rising, rows.values())))


def reconstruction(read: Read) -> Found:
    errors = [each["error"][0] for each in read("reconstruct")["study"]]
    return f"{errors[0]:.4f}, ..., {errors[-1]:.7f}", verdict(rising(reversed(errors)))


def learned_all(read: Read) -> Found:
    learned = Bounds(read, "bounds_learned").bits
    ours = [learned["learned_range", "even", 1000], learned["fixed_large", "even", 1000]]
    return listed(ours), verdict(rising(ours))


def cosine(read: Read) -> Found:
    """By the measurement with most terms and images that both runs have."""
    runs = [read(name) for name in ("cosine", "")]
    totals = [{_protocol(each): each["bpd"]["total"] for each in run["evaluation"] if "bpd" in each} for run in runs]
    shared = max(totals[0].keys() & totals[1].keys())
    ours = [each[shared] for each in totals]
    here = " and ".join(f"{mean:.3f} +- {error:.3f}" for mean, error in ours)
    return here, verdict(ours[0][0] < ours[1][0])


def _protocol(measured: dict[str, Any]) -> tuple[int, int]:
    return measured["bpd"]["times"], measured["bpd"]["num_examples"]


def optimal(read: Read) -> Found:
    found = Bounds(read, "bounds")
    pairs = {count: [found.bits["fixed_large", each, count] for each in ("optimal", "linspace")] for count in found.few}
    return f"10 steps: {listed(pairs[10])}", decided([(count, rising(pair)) for count, pair in pairs.items()])


def all_steps(read: Read) -> Found:
    found = Bounds(read, "bounds")
    best = {count: found.bits["fixed_large", "optimal", count] for count in found.steps}
    checks = [(count, best[1000] < best[count]) for count in found.few]
    return f"10, 100 and 1000 steps: {listed([best[10], best[100], best[1000]])}", decided(checks)


def worse_samples(read: Read) -> Found:
    found = _samples(read)
    names = ("fixed_small", "fixed_large", "analytic")
    pairs = [(found[name, "even"], found[name, "optimal"]) for name in names]
    right = sum(even < best for even, best in pairs)
    here = "; ".join(listed(pair) for pair in pairs)
    return f"10 steps, `even` and optimal: {here}", {0: "**no**", 3: "yes"}.get(right, f"in part: {right} of 3")


def _samples(read: Read) -> dict[tuple[str, str], float]:
    """The Frechet distances of ancestral samples in 10 steps, by variance and spacing."""
    measured = [each["fid"] for each in read("variances")["evaluation"] if "fid" in each]
    usual = [each for each in measured if each["drawn"]["clip"]]
    drawn = [(each["drawn"], each["fid"][0]) for each in usual if each["drawn"]["steps"] == 10]
    return {(how["variance"], how["spacing"]): distance for how, distance in drawn}


def variances(read: Read) -> Found:
    ours = Bounds(read, "bounds")
    names = ("analytic", "fixed_large", "fixed_small")
    rows = {count: [ours.bits[name, "linspace", count] for name in names] for count in ours.few}
    return f"10 steps: {listed(rows[10])}", decided([(count, rising(row)) for count, row in rows.items()])


def analytic_all(read: Read) -> Found:
    bits = Bounds(read, "bounds").bits
    least, *others = [bits[name, "even", 1000] for name in ("analytic", "fixed_small", "fixed_large")]
    return listed([least, *others]), verdict(least < min(others))


def fixed_all(read: Read) -> Found:
    bits = Bounds(read, "bounds").bits
    ours = [bits[name, "even", 1000] for name in ("fixed_small", "fixed_large")]
    return listed(ours), verdict(rising(ours))


def analytic_optimal(read: Read) -> Found:
    ours = Bounds(read, "bounds")
    pairs = {count: [ours.bits[name, "optimal", count] for name in ("analytic", "fixed_large")] for count in ours.few}
    return f"10 steps: {listed(pairs[10])}", decided([(count, rising(pair)) for count, pair in pairs.items()])


def learned_few(read: Read) -> Found:
    ours = Bounds(read, "bounds_learned").bits
    found = [ours[name, "linspace", count] for count in (25, 1000) for name in ("learned_range", "analytic")]
    holds = found[0] > found[1] and found[2] < found[3]
    return f"{listed(found[:2])} in 25 steps, {listed(found[2:])} in 1000", verdict(holds)


def better_samples(read: Read) -> Found:
    found = _samples(read)
    ours = [found[name, "even"] for name in ("analytic", "fixed_small", "fixed_large")]
    return f"10 steps: {listed(ours)}", verdict(rising(ours))


ALL = (
    Relation(
        SONG, "In few steps the distance rises with eta (0, 0.5, 1)", "Table 1, 10 steps: 13.36, 16.66, 41.07", eta
    ),
    Relation(SONG, "In few steps sigma-hat is worse than eta = 1", "Table 1, 10 steps: 41.07 and 367.43", sigma_hat),
    Relation(SONG, "More steps have a lesser distance", "Table 1, 10, 20, 50 steps: 13.36, 6.84, 4.67", more_steps),
    Relation(SONG, "sigma-hat in 1000 steps is better than eta = 0 in 50", "Table 1: 3.17, 4.67", many_steps),
    Relation(
        SONG, "Encoding and decoding has a lesser error in more steps", "Table 2: 0.014, ..., 0.0001", reconstruction
    ),
    Relation(
        NICHOL,
        "A learned variance has fewer bits/dim than a fixed one, in all T steps",
        "Table 2, linear, L_hybrid and L_simple: 3.26, 3.37",
        learned_all,
    ),
    Relation(NICHOL, "`cosine` has fewer bits/dim than `linear`", "Table 2, L_simple: 3.26, 3.37", cosine),
    Relation(
        WATSON,
        "Optimal times have fewer bits/dim than even ones down to 1 (`linspace`)",
        "Table 1, 10 steps: 5.38, 6.99",
        optimal,
    ),
    Relation(WATSON, "All steps have fewer bits/dim than any few", "Table 1: 5.38, 3.82, 3.75", all_steps),
    Relation(WATSON, "Optimal times have worse samples than even ones", "Appendix G.5, in words", worse_samples),
    Relation(
        BAO,
        "With times down to 1 (`linspace`), `analytic`, `fixed_large`, `fixed_small` have bits/dim in this order",
        "Table 1, 10 steps: 5.47, 6.99, 74.95",
        variances,
    ),
    Relation(BAO, "In all steps `analytic` has the fewest bits/dim", "Table 1: 3.59, 3.73, 3.75", analytic_all),
    Relation(BAO, "In all steps `fixed_small` has fewer than `fixed_large`", "Table 1: 3.73, 3.75", fixed_all),
    Relation(
        BAO,
        "At optimal times `analytic` has fewer than `fixed_large`",
        "Table 1, 10 steps: 4.11, 5.38",
        analytic_optimal,
    ),
    Relation(
        BAO,
        "A learned variance has more than `analytic` in few steps (`linspace`), and fewer in all",
        "Table 8, ImageNet 64x64: 18.91, 4.78 in 25 steps, 3.57, 3.61 in all",
        learned_few,
    ),
    Relation(
        BAO,
        "In few steps `analytic` has the least distance, `fixed_small` the next, `fixed_large` the greatest",
        "Table 2, 10 steps: 34.26, 44.45, 233.41",
        better_samples,
    ),
)
