"""The tables that are made from records, as Markdown: the keys of `TABLES` are their names in pages."""

import contextlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import relations

RECORDS = Path(__file__).parents[1] / "docs" / "records"
VERIFIED = (
    "ho_2020/cifar10",
    "ho_2020/cifar10 --loss bound",
    "ho_2020/cifar10 --loss bound --variance learned",
    "ho_2020/cifar10 --prediction mean",
    "ho_2020/cifar10 --prediction mean --loss bound",
    "ho_2020/cifar10 --prediction mean --loss bound --variance learned",
    "ho_2020/celeba_hq",
    "ho_2020/lsun",
    "ho_2020/lsun --large",
    "ho_2020/lsun --category church_outdoor",
    "ho_2020/lsun --category cat",
)
Record = dict[str, Any]


def record(name: str) -> Record:
    """The record of this name. Raises FileNotFoundError if there is none."""
    return json.loads((RECORDS / f"{name}.json").read_text())


def figure(estimate: Sequence[float | None]) -> str:
    """Mean and standard error, to two digits of the error."""
    mean, error = estimate
    if mean is None:
        return ""
    if not error:
        return f"{mean:.3f}"
    if abs(mean) < 1e-3 and error < 1e-4:
        return f"{mean:.1e} +- {error:.0e}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:z.{digits}f} +- {error:.{digits}f}"


def plain(value: float) -> str:
    """Two digits of a small number, without an exponent."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def table(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    first, *others = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([first, "|---" * len(head) + "|", *others])


def provenance(name: str, made: Record) -> str:
    """Where the figures of a record come from, in a line."""
    versions, commit = made["experiment"]["versions"], made["experiment"]["commit"] or "unknown"
    parts = [f"`{made['command']}`"]
    parts += [_time(made)]
    parts += [f"trained with ddpm_jax {versions['ddpm_jax']}, JAX {versions['jax']}, commit {commit[:7]}"]
    return f"[{name}.json](records/{name}.json): {', '.join(parts)}."


def _time(made: Record) -> str:
    return f"{made['time']} on {made['device']}" if "time" in made else f"on {made['device']}"


def likelihood(name: str) -> str:
    """The terms of the bound, of the measurement with the least error, and the likelihood of the ODE.

    If another measurement has more terms of the chain, its total follows.
    """
    made = record(name)
    bounds = [each["bpd"] for each in made["evaluation"] if "bpd" in each and "steps" not in each["protocol"]]
    best = min(bounds, key=lambda each: (each["total"][1], -each["times"]))
    fullest = max(bounds, key=lambda each: (each["times"], each["num_examples"]))
    rows = [_part(best, part) for part in TERMS] + [_part(fullest, "total")] * (fullest["times"] > best["times"])
    odes = [each for each in made["evaluation"] if "nll" in each and each["protocol"]["dequantization"] == "decoder"]
    if odes:
        tightest = min(odes, key=lambda each: (each["protocol"]["tolerance"], -each["nll"]["num_examples"]))
        rows += [_ode(tightest)]
    return table(("", "bits/dim", "test images", "protocol"), rows) + f"\n\n{provenance(name, made)}"


TERMS = ("total", "prior", "chain", "decoder")


def _part(bound: Record, part: str) -> list[str]:
    return [part, figure(bound[part]), f"{bound['num_examples']:,}", f"{bound['times']} terms of the chain each"]


def _ode(measured: Record) -> list[str]:
    nll, tolerance = measured["nll"], measured["protocol"]["tolerance"]
    how = f"tolerance {tolerance:g}, {nll['calls']:.0f} network calls"
    return ["probability-flow ODE", figure(nll["bits_per_dim"]), f"{nll['num_examples']:,}", how]


def quality(name: str) -> str:
    """The metrics of samples, a row for each way to draw them and each protocol."""
    made = record(name)
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for metric, measured in (item for each in made["evaluation"] for item in each.items() if item[0] in QUALITY):
        row = rows.setdefault(_drawn(measured), {})
        row |= {title: figure(measured[number]) for title, number in QUALITY[metric].items()}
    titles = [title for numbers in QUALITY.values() for title in numbers if any(title in row for row in rows.values())]
    lines = [[*drawn, *(row.get(title, "") for title in titles)] for drawn, row in rows.items()]
    return table(("samples", "compared with", "features", *titles), lines) + f"\n\n{provenance(name, made)}"


QUALITY = {
    "fid": {"Frechet distance": "fid"},
    "kid": {"KID": "kid"},
    "pr": {"precision": "precision", "recall": "recall"},
}
"""The columns of `quality`: by metric, the titles and names of its numbers."""


def _drawn(measured: Record) -> tuple[str, ...]:
    """How samples were drawn, what they are compared with, and the features."""
    drawn, protocol = measured["drawn"], measured["protocol"]
    usual = {"spacing": "even", "weights": "ema", "seed": 0, "clip": True}
    others = [f"{key} {value}" for key, value in drawn.items() if usual.get(key) != value and key in NAMED]
    how = ", ".join([f"{protocol['samples']:,} by `{drawn['sampler']}` in {drawn['steps']} steps", *others])
    return how, f"{protocol['reference']:,} {protocol['split']} images", Path(protocol["features"]).name


NAMED = ("spacing", "variance", "eta", "guidance", "weights", "seed", "clip")
"""What `_drawn` states if it is not the usual."""


def tried(*names: str) -> str:
    """K of several runs, a row for each, by the options that not all of them have."""
    made = [record(name) for name in names]
    shared = set.intersection(*(set(options(each["command"])) for each in made))
    rows = []
    for name, each in zip(names, made, strict=True):
        own = " ".join(option for option in options(each["command"]) if option not in shared)
        label = f"[{'none' if not own else f'`{own}`'}](records/{name}.json)"
        rows += [[label, each["time"], *_gain(each)]]
    return table(("options", "time", *GAIN), rows)


GAIN = ("examples, terms each", "K", "K - L_null")


def _gain(made: Record) -> list[str]:
    """The cells of `GAIN`, of the measurement with most terms and examples."""
    found = [each["bpd"] for each in made["evaluation"] if "bpd" in each]
    bound = max(found, key=lambda bpd: (bpd["times"], bpd["num_examples"]))
    where = f"{bound['num_examples']:,}, {bound['times']}"
    return [where, figure(bound["K"]), f"{bound['K_over_null'][0]:.3f}"]


def compared(*names: str) -> str:
    """Bits/dim and the Frechet distance of samples of several runs, a row for each."""
    rows = []
    for name in names:
        made = record(name)
        latest = {metric: measured for each in made["evaluation"] for metric, measured in each.items()}
        figures = [figure(latest["bpd"]["total"]), figure(latest["fid"]["fid"])]
        rows += [[f"[{name}](records/{name}.json)", f"{latest['step']:,}", _time(made), *figures]]
    return table(("run", "steps", "time", "bits/dim", "Frechet distance"), rows)


def paper_2015(*names: str) -> str:
    """K of runs of Sohl-Dickstein et al. 2015, beside the paper's."""
    rows = []
    for name in names:
        made = record(name)
        experiment = made["experiment"]
        data, theirs = PAPER_2015[experiment["knobs"].get("data", Path(experiment["experiment"]).stem)]
        rows += [[f"[{data}](records/{name}.json)", theirs, *_gain(made), f"`{made['command']}`", _time(made)]]
    return table(("data", "the paper's K, K - L_null", *GAIN, "command", "time"), rows)


PAPER_2015 = {
    "heartbeat": ("binary heartbeat, bits per sequence", "-2.414, 12.024"),
    "swiss_roll": ("swiss roll, bits", "2.35, 6.45"),
    "dead_leaves": ("dead leaves, bits per pixel", "1.489, 3.536"),
    "mnist_5000": ("MNIST, 5,000 digits, bits per pixel", "not stated"),
    "textures": ("textures in place of bark, bits per pixel", "-0.55, 1.5 of bark"),
}
"""The titles and the figures of Tables 1 and 2 of the paper, by data."""


def parzen(*names: str) -> str:
    """The log-likelihoods of Parzen windows around samples, in bits, by run and by the way to draw."""
    rows = []
    for name in names:
        made = record(name)
        for each in (each for each in made["evaluation"] if "parzen" in each):
            window, protocol = each["parzen"], each["protocol"]
            sampler, spacing = protocol.get("sampler", "ancestral"), protocol.get("spacing")
            how = f"`{sampler}` in {protocol.get('steps', 1000)} steps" + (f", {spacing}" if spacing else "")
            bits = [value / math.log(2) for value in window["nats"]]
            label = f"[`{' '.join(options(made['command']))}`](records/{name}.json)"
            rows += [[label, f"{window['samples']:,}", how, f"{window['num_examples']:,}", figure(bits)]]
    return table(("options", "samples", "drawn by", "test images", "Parzen window, bits"), rows)


def options(command: str) -> list[str]:
    """The options of a command with their values, such as "--num-steps 100"."""
    return [f"--{part.strip()}" for part in f" {command}".split(" --")[1:] if not part.startswith("workdir")]


def sweep(*names: str) -> str:
    """The Frechet distances of samplers by their number of steps, from the studies of a run, and their times."""
    made = [record(name) for name in names]
    rows: dict[tuple[str, ...], dict[Any, str]] = {}
    points = [point for each in made for point in each["study"]]
    is_timed = all(point.get("eta") is None for point in points)
    for point in points:
        eta = "" if point.get("eta") is None else f", eta {point['eta']:g}"
        row = rows.setdefault((f"`{point['sampler']}`{eta}",), {})
        row[point["steps"]] = f"{point['distance']:.3f}"
        if is_timed and point["steps"] == TIMED:
            row["time"] = f"{1000 * point['seconds']:.1f}"
    return _by_steps(("sampler",), rows) + "".join(f"\n\n{provenance(*each)}" for each in zip(names, made, strict=True))


TIMED = 20
"""The number of steps whose time `sweep` shows, but for a study of eta, on which it does not depend."""


def bounds(name: str, *variances: str) -> str:
    """The bounds of the models of few steps, by variance and spacing."""
    made = record(name)
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for point in made["study"]:
        if not variances or point["variance"] in variances:
            label = (f"`{point['variance']}`", f"`{point['spacing']}`")
            rows.setdefault(label, {})[point["steps"]] = f"{point['bits'][0]:.3f}"
    return _by_steps(("variance", "spacing"), rows) + f"\n\n{provenance(name, made)}"


def reconstruct(name: str) -> str:
    """The mean squared errors of images that DDIM encodes and decodes, beside those of Song et al. 2021."""
    made = record(name)
    song = {10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001}
    images = "digits" if name.startswith("digits") else "images"
    rows = {
        (f"{made['study'][0]['images']} test {images}",): {p["steps"]: plain(p["error"][0]) for p in made["study"]},
        ("CIFAR-10 (Song et al. 2021, Table 2)",): {steps: plain(error) for steps, error in song.items()},
    }
    return _by_steps(("",), rows) + f"\n\n{provenance(name, made)}"


def _by_steps(names: tuple[str, ...], rows: Mapping[tuple[str, ...], Mapping[Any, str]]) -> str:
    """A table with a column for each number of steps, and for the times if there are any."""
    found = set(itertools.chain(*rows.values()))
    columns: list[Any] = [*sorted(found - {"time"}), *(found & {"time"})]
    titles = [f"ms an image, {TIMED} steps" if each == "time" else f"{each} steps" for each in columns]
    return table((*names, *titles), [[*label, *(row.get(each, "") for each in columns)] for label, row in rows.items()])


def verified() -> str:
    """What `ddpm-jax verify` finds for each run of Ho et al. 2020."""
    from ddpm_jax.commands import main

    found = io.StringIO()
    with contextlib.redirect_stdout(found):
        for run in VERIFIED:
            main(["verify", *run.split(), "--markdown"])
    head = table(("run", "figures that agree", "the paper's results", "ours"), [])
    return f"{head}\n{found.getvalue().strip()}"


def descendants(*models: str) -> str:
    """The relations that papers report, and whether they hold for each of the models."""
    heads = [head for name in models for head in (MODELS[name], "holds")]
    rows = [
        [each.paper, each.claim, each.theirs, *itertools.chain(*(_found(each, name) for name in models))]
        for each in relations.ALL
    ]
    return table(("paper", "relation", "theirs", *heads), rows)


MODELS = {"digits": "digits", "fashion_small": "Fashion-MNIST"}
"""The models of `descendants`, by the names with which their records begin, and their titles."""


def _found(relation: relations.Relation, model: str) -> relations.Found:
    """The figures of a model, and whether the relation holds; of studies without a record, that there are none."""
    try:
        return relation.found(lambda study: record(f"{model}_{study}".removesuffix("_")))
    except FileNotFoundError:
        return "not measured", ""


ALL = (likelihood, quality, tried, compared, sweep, bounds, reconstruct, verified, descendants, paper_2015, parzen)
TABLES: dict[str, Callable[..., str]] = {each.__name__: each for each in ALL}
