"""A workdir as a model: a small folder with the parameters, and a card that states what rounding them costs."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from ddpm_jax.experiment import Experiment
from ddpm_jax.runs import experiment_files, models, workdir
from ddpm_jax.runs.chunks import kept
from ddpm_jax.runs.evaluate_requests import OF_SAMPLES
from ddpm_jax.runs.likelihood import bound_work, mean_and_error, units
from ddpm_jax.runs.records import read_records
from ddpm_jax.runs.report import fitting_batch
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import PackRequest
from ddpm_jax.runs.versions import versions
from ddpm_jax.sampling import Run
from ddpm_jax.system.files import whole_folder, write_json
from ddpm_jax.training.digests import digest

PROBE = 2
"""The number of examples whose bounds decide whether two experiments are the same."""


def pack(request: PackRequest, reporter: Reporter | None = None) -> str:
    """Writes a run as a model into the folder ``request.out``. Returns a line that describes it.

    Raises ValueError for a folder that exists, an experiment that is not the library's or has changed, and parameters
    that the type does not have; FileNotFoundError for a folder without a run, or without its data.
    """
    if request.out.exists():
        raise ValueError(f"{request.out} exists: choose another name")
    workdir.check_workdir(request.workdir)
    run = workdir.load(request.workdir, request.weights, request.checkpoint)
    name, ours = _library_experiment(request, run)
    tensors = models.tensors_of(run.params, request.dtype)
    arrays = iter(tensors.values())
    stored = Run(ours, jax.tree.map(lambda _: np.asarray(next(arrays), np.float32), run.params), run.step)
    recorded = workdir.read_record(request.workdir)
    record = recorded | {
        "experiment": f"{name}.py",
        "description": experiment_files.headline(experiment_files.shipped()[name]),
        "command": _command(name, workdir.read_knobs(request.workdir), recorded),
        "step": run.step,
        "weights": workdir.weights_in(request.workdir, run.step, request.weights),
        "dtype": request.dtype,
        "parameters": sum(tensor.size for tensor in tensors.values()),
        "digest": digest(jax.device_put(stored.params)),
        "bits_per_dim": _measured(run, stored, request, reporter or Reporter()),
        "results": list(_results(request.workdir, run.step, request.weights)),
    }
    write(request.out, record, tensors)
    return f"{record['parameters']:,} parameters, {request.dtype}, in {request.out}; its card is README.md there"


def write(out: Path, record: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    """Writes the files of a model into the new folder `out`; the SHA-256 of the weights is added to the record."""
    from safetensors.numpy import save

    with whole_folder(out) as part:
        (part / models.WEIGHTS).write_bytes(save(tensors))
        record = record | {"sha256": models.sha256(part / models.WEIGHTS)}
        write_json(part / "experiment.json", record)
        (part / "README.md").write_text(card(out.resolve().name, record))


def _library_experiment(request: PackRequest, run: Run) -> tuple[str, Experiment]:
    """The name of the library's experiment and what it builds with the knobs of the run.

    Raises ValueError if it is not found or not the experiment of the run: if the bounds of examples differ.
    """
    recorded = workdir.read_record(request.workdir)["experiment"]
    known = experiment_files.shipped()
    named = [name for name in known if name == request.experiment or f"{Path(name).name}.py" == recorded]
    name = request.experiment or (named[0] if len(named) == 1 else "")
    if name not in known:
        raise ValueError(f"--experiment: give the name of {recorded} in the library, one of {', '.join(known)}")
    ours = experiment_files.build(experiment_files.read(known[name]), workdir.read_knobs(request.workdir))
    mine, theirs = (_bits(each, PROBE, 1, Reporter()) for each in (run, run._replace(experiment=ours)))
    if ours.sampler is not run.experiment.sampler or not np.allclose(mine, theirs, rtol=1e-4):
        raise ValueError(f"the experiment {name} of the library is not that of {request.workdir}: it has changed since")
    return name, ours


def _measured(run: Run, stored: Run, request: PackRequest, reporter: Reporter) -> dict[str, Any]:
    """The bits/dim of the parameters in float32 and as they are stored, on the same x_t, and their difference."""
    total = len(run.experiment.data.open("test"))
    num = total if request.num is None else min(request.num, total)
    before, after = (_bits(each, num, request.times, reporter) for each in (run, stored))
    named = {"stored": after, "float32": before, "difference": after - before}
    protocol = {"split": "test", "num_examples": num, "times": request.times, "seed": 0}
    return {key: mean_and_error(bits) for key, bits in named.items()} | protocol | {"versions": versions()}


def _bits(run: Run, num: int, times: int, reporter: Reporter) -> np.ndarray:
    """An estimate of the bits/dim of each of the first `num` test examples, from this number of random t: [num]."""
    source, size = run.experiment.data.open("test"), min(num, fitting_batch(run.experiment.data.image_shape))
    with TemporaryDirectory() as folder:
        results = kept(bound_work(run, source, num, times, size, seed=0), Path(folder), reporter)
        parts = np.concatenate([result["parts"] for result in results])
    return parts[:, :3].sum(axis=1) * units(run.experiment)[0]  # prior, chain and decoder


def _results(folder: Path, step: int, weights: str | float) -> Iterator[dict[str, Any]]:
    """The records of the workdir for this step and these weights, without their curves."""
    weights = workdir.weights_in(folder, step, weights)
    for record in read_records(folder / "evaluation.json"):
        if record["step"] == step and record["weights"] == weights:
            yield {name: _without_curves(value) for name, value in record.items()}


def _without_curves(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if not _is_curve(each)}


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 2 and not isinstance(value[0], str)  # names of metrics are kept


def _command(name: str, knobs: dict[str, Any], record: dict[str, Any]) -> str:
    """The command that made a run: that trains with these knobs, without those of the library's values, or converts."""
    if "converted" in record:
        return shlex.join(["ddpm-jax", "convert", record["converted"], "--weights", str(record["weights"])])
    defaults = experiment_files.defaults(experiment_files.read(experiment_files.shipped()[name]))
    words = ["ddpm-jax", "train", name]
    for knob, value in knobs.items():
        option = knob.replace("_", "-")
        if repr(value) == repr(defaults.get(knob)):
            continue
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{option}")
        else:
            words += [f"--{option}", *map(str, value if isinstance(value, tuple) else (value,))]
    origin = record.get("from")
    words += [] if origin is None else ["--from", origin["workdir"], "--weights", str(origin["weights"])]
    return shlex.join(words)


def card(name: str, record: dict[str, Any]) -> str:
    """The card of a model in Markdown, from the record in its ``experiment.json``."""
    bits, versions = record["bits_per_dim"], record["versions"]
    data = record.get("data", {"found": "not recorded", "digest": "not recorded"})
    protocol = f"{bits['num_examples']} {bits['split']} examples, {bits['times']} random t each, seed {bits['seed']}"
    others = ", ".join(f"{package} {version}" for package, version in versions.items() if package != "ddpm_jax")
    rows = {
        "trained on": f"{data['found']}; digest `{data['digest']}`",
        "trained by": f"`{record['command']}`, {record['step']:,} steps",
        "with": f"ddpm_jax {versions['ddpm_jax']}, commit `{record['commit'] or 'not recorded'}`; {others}",
        "weights": f"{record['weights']}, {record['parameters']:,} parameters, stored as {record['dtype']}",
        "bits/dim": f"{_figure(bits['stored'])} ({protocol})",
        "bits/dim in float32": f"{_figure(bits['float32'])}; stored minus float32 {_figure(bits['difference'], 6)}",
        f"SHA-256 of {models.WEIGHTS}": f"`{record['sha256']}`",
        "digest of the parameters": f"`{record['digest']}`, as in the provenance of samples",
    }
    table = [f"| {what} | {value} |" for what, value in rows.items()]
    lines = [f"# {name}", "", record["description"], "", "| | |", "|---|---|", *table]
    results = [row for each in record["results"] for row in _rows(each)]
    if results:
        heading = "Other results of the run, of the float32 parameters (mean and standard error):"
        lines += ["", heading, "", "| measured | result | protocol |", "|---|---|---|", *results]
    return "\n".join(lines) + "\n"


def _rows(record: dict[str, Any]) -> Iterator[str]:
    """A row of the card for each metric of a record of ``evaluation.json``."""
    for metric in record["protocol"]["metrics"]:
        unused = UNSTATED | (set() if metric in OF_SAMPLES else {"samples"})
        options = [f"{k} {v}" for k, v in record["protocol"].items() if k not in unused and v is not None]
        block = record["bpd" if metric in BOUNDS else metric]
        names = [BOUNDS[metric]] if metric in BOUNDS else [key for key, value in block.items() if _is_estimate(value)]
        examples = [f"{block['num_examples']} examples"] if "num_examples" in block else []
        for name in names:
            yield f"| {metric} {name} | {_figure(block[name])} | {', '.join([*examples, *options])} |"


UNSTATED = {"metrics", "clip", "num", "classifier", "classifier_step", "classifier_digest"}
"""The parts of a protocol that are in ``experiment.json`` only."""
BOUNDS = {"bpd": "total", "K": "K"}
"""The figure of a metric that is computed from the terms of the bound, under "bpd" in a record."""


def _is_estimate(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _figure(estimate: Any, digits: int = 4) -> str:
    mean, error = estimate
    return f"{mean:.{digits}f}" + ("" if error is None else f" +- {error:.{digits}f}")
