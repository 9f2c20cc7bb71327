"""The steps of the model that a command asks for: spacing and variance by name."""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddpm_jax.diffusion.parameterizations import with_variance
from ddpm_jax.diffusion.samplers import SPACINGS, Spacing, optimal
from ddpm_jax.diffusion.samplers.times import check_count
from ddpm_jax.diffusion.types import Variance
from ddpm_jax.experiment import with_parameterization
from ddpm_jax.runs.evaluate_requests import OF_SAMPLES, EvaluateRequest
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.runs.statistics import VARIANCES, statistics
from ddpm_jax.sampling import Run


class Model(NamedTuple):
    """What a command has chosen about the steps of a run."""

    spacing: Spacing
    variance: Variance | None
    """None is that of the experiment."""
    measured: str | None
    """What identifies the statistics that the spacing or the variance is made from; None if neither is."""

    def folder(self, keep: Path) -> Path:
        """The folder for results of this model: `keep`, with what identifies the statistics in its name."""
        return marked(keep, self.measured)

    def record(self) -> dict[str, str]:
        """The entry of a record for the statistics; none without them."""
        return {} if self.measured is None else {"statistics": self.measured}


def model(run: Run, request: SampleRequest | EvaluateRequest, reporter: Reporter) -> Model:
    """The spacing and the variance that the request names, for the run that was loaded from its workdir.

    Where the name is "optimal" or "analytic", the statistics of the run are read from the workdir, or estimated and
    written there. Every process must call this function. Raises ValueError for steps out of range, for "optimal" and a
    run whose own variance is not a fixed one, unless another is chosen, and for both if the process is not Gaussian.
    """
    spacing, variance = request.spacing, request.variance
    if request.steps is not None:
        check_count(run.experiment.process.schedule.num_steps, request.steps)
    if spacing != "optimal" and variance != "analytic":
        return Model(SPACINGS[spacing], None if variance is None else VARIANCES[variance], None)
    name = variance or _own(run)
    found = statistics(request.workdir, run, request.weights, reporter=reporter)
    spaced = optimal(found.costs(run, name)) if spacing == "optimal" else SPACINGS[spacing]
    digest = zlib.crc32(b"".join(np.asarray(each, np.float32).tobytes() for each in found))
    return Model(spaced, None if variance is None else found.variance(name), f"{digest:08x}")


def check_guidance(request: SampleRequest | EvaluateRequest) -> None:
    """Raises ValueError for guidance with what is computed from statistics, which are those of the unguided network."""
    by_classifier = isinstance(request, SampleRequest) and request.classifier is not None
    if request.guidance in (None, 0 if by_classifier else 1):
        return
    given = f"--guidance {request.guidance:g}"
    of_network = f"is computed from statistics of the network without guidance: leave out {given}"
    if request.variance == "analytic":
        raise ValueError(f"--variance analytic {of_network}, or choose fixed_small or fixed_large")
    if request.spacing == "optimal":
        raise ValueError(f"--spacing optimal {of_network}, or choose another spacing")


def without_statistics(request: SampleRequest) -> Model:
    """The model of the request with even times for "optimal" and `fixed_large` for "analytic": to check a request."""
    variance = None if request.variance is None else VARIANCES.get(request.variance, VARIANCES["fixed_large"])
    return Model(SPACINGS.get(request.spacing, SPACINGS["even"]), variance, None)


def marked(keep: Path, measured: str | None) -> Path:
    """The folder `keep`, with what identifies the statistics, if there are any, in its name."""
    return keep if measured is None else keep.with_name(f"{keep.name}_{measured}")


def _own(run: Run) -> str:
    """The name of the variance of the run."""
    run.experiment.process.require_gaussian("--spacing optimal")
    for name, variance in VARIANCES.items():
        if run.experiment.parameterization.variance is variance:
            return name
    raise ValueError("--spacing optimal needs a known variance, this run has its own: add --variance analytic")


def check_steps(request: EvaluateRequest) -> None:
    """Raises ValueError for options of steps or samples that the metrics do not use, or that exclude each other."""
    check_guidance(request)
    metrics, options = set(request.metrics or ()), request.sampling()
    for name in options:
        users = OF_SAMPLES if name in ("sampler", "eta", "guidance") else ("bpd", *OF_SAMPLES)
        if not metrics.intersection(users):
            names = ", ".join(users)
            raise ValueError(f"--{name} applies to --metrics {names}, not to {' '.join(request.metrics or ())}")
    if _of_steps(request) and (others := metrics & {"K", "nll", "importance", "entropy"}):
        names = " ".join(sorted(others))
        raise ValueError(f"--metrics {names} measures all T steps: leave out --steps, --spacing and --variance")
    if _of_steps(request) and request.times is not None and "bpd" in metrics:
        raise ValueError("--times estimates the bound of all T steps: leave out --steps, --spacing and --variance")


def _of_steps(request: EvaluateRequest) -> bool:
    """Whether the request is about steps other than the run's own T."""
    return bool({"steps", "spacing", "variance"} & request.sampling().keys())


def stepped(run: Run, request: EvaluateRequest, reporter: Reporter) -> tuple[Run, np.ndarray | None, str | None]:
    """(run, times that it visits, what identifies the statistics in use) for the model that bpd measures.

    The times are None for all T steps.
    """
    if not _of_steps(request):
        return run, None, None
    chosen = model(run, request, reporter)
    schedule, parameterization = run.schedule, run.experiment.parameterization
    visits = chosen.spacing(schedule, schedule.num_steps if request.steps is None else request.steps)
    if chosen.variance is not None:
        parameterization = with_variance(parameterization, chosen.variance)
    return run._replace(experiment=with_parameterization(run.experiment, parameterization)), visits, chosen.measured
