"""Evaluation during training: bits/dim, the Frechet distance of few samples, and the checkpoint that is best by one.

Each evaluation has the same test examples, times, noise and reference images, so two of them differ by the parameters
only. They are much cheaper, and less exact, than those of `runs.report.evaluate`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ddpm_jax import figures
from ddpm_jax.data import load
from ddpm_jax.diffusion.samplers import SAMPLERS, SPACINGS
from ddpm_jax.experiment import Experiment, Params, bound_fn, labels
from ddpm_jax.metrics import frechet_distance
from ddpm_jax.runs.evaluate_requests import EvaluateRequest
from ddpm_jax.runs.features import features_of, pictures, vectors, weights_of
from ddpm_jax.runs.likelihood import Estimate, draw_times, mean_and_error, units
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import Evaluations, Execution
from ddpm_jax.runs.sample import default_batch_size
from ddpm_jax.runs.statistics import Spread
from ddpm_jax.sampling import sample_fn
from ddpm_jax.training import EMA, Action, Log, TrainState, best, distributed, sharding
from ddpm_jax.training.keys import EVALUATE, SAMPLE, keys

EXAMPLES, TIMES = 128, 20
"""The greatest number of test examples, and the number of random t of each at which the bound is evaluated."""
STEPS = 10
"""The steps of a sample, by dpm++2m at times evenly spaced in log-SNR."""
REFERENCES = 1000
"""The greatest number of training images that samples are compared with, at equal distances in the split."""


class Metric(NamedTuple):
    """A number that is measured during training: the less, the better."""

    title: str
    protocol: str
    """What the number depends on apart from the parameters."""
    measure: Callable[[Params], Estimate]
    """``measure(parameters)`` -> (value, standard error or None), in process 0; every process must call it."""


@contextmanager
def evaluated(
    experiment: Experiment, mesh: Mesh, execution: Execution, folder: Path, log: Log, reporter: Reporter
) -> Iterator[Action]:
    """The action that evaluates the averaged parameters of a run in the workdir `folder`. It only reads the state.

    It writes a row of `log`, reports a line, draws ``evaluation.png``, and keeps the best state in ``best/`` if
    ``execution.keep_best`` names a metric.
    """
    if experiment.every.evaluate is None:
        yield Action(0, lambda *_: None)
        return
    measured = metrics(experiment, mesh, execution, folder)
    judge = _judge(execution)
    criterion = None if judge is None else f"{judge} of {measured[judge].protocol}"
    with best.kept(folder / "best", criterion) as keep:

        def do(step: int, state: TrainState, _: Any) -> None:
            found = {name: metric.measure(state.averages[EMA]) for name, metric in measured.items()}
            log.scalars(step, _row(found))
            is_best = keep(state, math.inf if judge is None else found[judge][0])
            if distributed.is_leader():
                reporter.line(f"step {step}: {_text(measured, found)}{', the best so far' if is_best else ''}")
                if curves := _curves(folder / "metrics.jsonl", measured):
                    figures.by_step(curves, folder / "evaluation.png")

        yield Action(experiment.every.evaluate, do)


def _judge(execution: Execution) -> str | None:
    """The name of the metric that chooses the best checkpoint; None if none is kept."""
    return _distance_name(execution) if execution.keep_best == "frechet" else execution.keep_best


def _distance_name(execution: Execution) -> str:
    return f"frechet_{execution.features}"


def metrics(experiment: Experiment, mesh: Mesh, execution: Execution, folder: Path) -> dict[str, Metric]:
    """The metrics by their names in the log: "bpd", and for images the Frechet distance, such as "frechet_pixels"."""
    bits = {"bpd": _bits(experiment, mesh)}
    if not _has_images(experiment):
        return bits
    return bits | {_distance_name(execution): _distance(experiment, mesh, execution, folder)}


def _has_images(experiment: Experiment) -> bool:
    return len(experiment.data.image_shape) == 3 and experiment.data.levels is not None


def _bits(experiment: Experiment, mesh: Mesh) -> Metric:
    """The bound on the negative log-likelihood of test examples, in bits/dim."""
    test, bound, T = experiment.data.open("test"), bound_fn(experiment), experiment.process.schedule.num_steps
    examples = Spread(test, min(EXAMPLES, len(test)))
    few = T - 1 > TIMES

    def nats(params: Params, row_keys: jax.Array, batch: Any) -> jax.Array:
        return bound(params, row_keys, batch, *(draw_times(row_keys, TIMES, T) if few else ())).total()

    rows = _rows(experiment, mesh, nats, len(examples), EVALUATE, lambda chosen: load(examples, chosen.tolist()))
    protocol = f"{len(examples)} test examples, {f'{TIMES} random' if few else 'all'} t of each"
    return Metric("bits/dim", protocol, lambda params: mean_and_error(rows(params) * units(experiment)[0]))


def _distance(experiment: Experiment, mesh: Mesh, execution: Execution, folder: Path) -> Metric:
    """The Frechet distance of samples from training images."""
    data, train, num = experiment.data, experiment.data.open("train"), execution.samples
    references, classes = Spread(train, min(REFERENCES, len(train))), labels(experiment, num)
    draw, how = _sampling(experiment)
    rows = _rows(experiment, mesh, draw, num, SAMPLE, lambda chosen: None if classes is None else classes[chosen])
    features = cache(lambda: features_of(_request(execution, folder), data.image_shape))

    @cache
    def reference() -> np.ndarray:
        return vectors(features(), pictures(references, range(len(references)), data.levels))

    def measure(params: Params) -> Estimate:
        images = rows(params)
        return frechet_distance(vectors(features(), images), reference()) if distributed.is_leader() else math.inf, None

    protocol = f"{execution.features}, {num} samples {how}, {len(references)} training images"
    return Metric("Frechet distance", protocol, measure)


def _sampling(experiment: Experiment) -> tuple[Callable[..., jax.Array], str]:
    """(sample, its description): in few steps, or as the experiment previews where that is with its own sampler."""
    schedule = experiment.process.schedule
    if experiment.preview_eta is None:
        return sample_fn(experiment), f"in all {schedule.num_steps} steps"
    steps, spacing = min(STEPS, schedule.num_steps), "even"
    if schedule.alpha_bar[-1] > 0 and not experiment.trainable:  # else its levels of noise are unknown or unbounded
        spacing = "logsnr"
    return sample_fn(experiment, SAMPLERS["dpm++2m"], steps, spacing=SPACINGS[spacing]), f"in {steps} steps"


def _rows(
    experiment: Experiment,
    mesh: Mesh,
    function: Callable[[Params, jax.Array, Any], jax.Array],
    num: int,
    purpose: int,
    batch: Callable[[np.ndarray], Any],
) -> Callable[[Params], np.ndarray]:
    """Returns ``rows(parameters)`` -> ``function(parameters, keys, batch(rows))`` for the rows 0 .. num - 1.

    The rows are split over all devices of the mesh, as many at a time as these compute together. Every process gets
    all results. There is one compilation, whatever the parameters.
    """
    size = mesh.size * min(default_batch_size(experiment.data.image_shape), math.ceil(num / mesh.size))

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def chunk(params: Params, first: jax.Array, given: Any) -> jax.Array:
        own = keys(experiment.seed, size, first, purpose), given
        own_keys, given = jax.lax.with_sharding_constraint(own, sharding.batch_sharding(mesh))
        return function(sharding.all_gathered(params, mesh), own_keys, given)

    def rows(params: Params) -> np.ndarray:
        firsts = range(0, num, size)  # the last chunk is filled up from the beginning
        found = [np.asarray(chunk(params, np.int32(n), batch((n + np.arange(size)) % num))) for n in firsts]
        return np.concatenate(found)[:num]

    return rows


def _row(found: Mapping[str, Estimate]) -> dict[str, float]:
    errors = {f"{name}_error": error for name, (_, error) in found.items() if error is not None}
    return {name: value for name, (value, _) in found.items()} | errors


def _text(measured: Mapping[str, Metric], found: Mapping[str, Estimate]) -> str:
    parts = []
    for name, (value, error) in found.items():
        parts.append(f"{measured[name].title} {value:.4g}" + ("" if error is None else f" +- {error:.2g}"))
    return ", ".join(parts)


def _curves(path: Path, measured: Mapping[str, Metric]) -> dict[str, list[tuple[int, float]]]:
    """The values in the log by step, of each metric, by its title and protocol."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    values = {name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in measured}
    return {f"{each.title}\n{each.protocol}": values[name] for name, each in measured.items() if values[name]}


def _request(execution: Execution, folder: Path) -> EvaluateRequest:
    return EvaluateRequest(folder, features=execution.features, inception_weights=execution.inception_weights)


def check(experiment: Experiment, execution: Execution) -> None:
    """Raises ValueError, with one line, for evaluations during training that are not possible, or options without them.

    Raises FileNotFoundError if the test split is missing.
    """
    usual = Evaluations()
    given = [f"--{name.replace('_', '-')}" for name in vars(usual) if getattr(execution, name) != getattr(usual, name)]
    if experiment.every.evaluate is None:
        if given:
            raise ValueError(f"{given[0]} is for evaluations during training: add --evaluate-every, or leave it out")
        return
    if execution.samples < 2:
        raise ValueError(f"--samples must be at least 2 for a Frechet distance, got {execution.samples}")
    if not len(experiment.data.open("test")):
        raise ValueError(f"{experiment.data.name} has no test examples for evaluations: leave out --evaluate-every")
    if _has_images(experiment):
        _sampling(experiment)
        weights_of(_request(execution, Path()), experiment.data.image_shape)
    elif (given and given != ["--keep-best"]) or execution.keep_best == "frechet":
        raise ValueError(f"{given[0]}: a Frechet distance is for images of bytes, not for {experiment.data.name}")
