"""Conversion between workdirs and folders of the diffusers library."""

from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.diffusion.samplers import SAMPLERS
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.experiment import Experiment, first_state, shapes
from ddpm_jax.interop import folders, schedulers, tensors, unets
from ddpm_jax.networks import UNet
from ddpm_jax.runs import experiment_files, workdir
from ddpm_jax.runs.requests import ConvertRequest
from ddpm_jax.system.files import whole_folder
from ddpm_jax.training import checkpoints


def convert(request: ConvertRequest) -> str:
    """Converts ``request.source`` into ``request.target``, which must not exist. Returns a line that names the result.

    Raises ValueError or FileNotFoundError for a folder that cannot be converted.
    """
    source, target = request.source, request.target
    if target.exists():
        raise ValueError(f"{target} exists: choose another name")
    if not (source / "experiment.json").is_file():
        return from_diffusers(request)
    if given := request.data_knobs():
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{options}: only for a diffusers folder; leave it out, since {source} is a workdir")
    return to_diffusers(source, target, request.weights or "ema")


def from_diffusers(request: ConvertRequest) -> str:
    """Converts a diffusers folder into a workdir with a checkpoint of step 0. Returns a line that names it."""
    content = folders.read(request.source)
    weights = _checked_weights(content, request.weights)
    fields, loaded = unets.to_fields(content.unet), content.tensors
    if content.origin.get("null_class"):
        fields["num_classes"] -= 1
    else:
        loaded = tensors.with_null_class(loaded)
    path = experiment_files.shipped()["imported"]
    function = experiment_files.read(path)
    knobs = experiment_files.defaults(function) | fields | schedulers.to_knobs(content.scheduler) | request.data_knobs()
    experiment = experiment_files.build(function, knobs)
    params = tensors.to_params(loaded, shapes(experiment), len(fields["multipliers"]))
    with whole_folder(request.target) as part:
        workdir.prepare(part, path, knobs, weights=weights, converted=str(request.source.absolute()))
        with checkpoints.manager(part / "checkpoints") as manager:
            checkpoints.save(manager, first_state(experiment, params))
    line = f"{request.target} holds the run with {weights} weights; ddpm-jax sample {request.target} draws images"
    ignored, spaced = schedulers.ignored(content.scheduler), schedulers.SPACING
    return line + (f"; with --steps, at times spaced as {spaced}, not by {ignored} of the scheduler" if ignored else "")


def _checked_weights(content: folders.Folder, given: str | float | None) -> str | float:
    """Returns "ema", "raw" or a length, as recorded or given. Raises ValueError without either, or if they disagree."""
    recorded = content.origin.get("weights") or ("ema" if content.unet.keys() & unets.AVERAGE else None)
    if recorded and given and recorded != given:
        raise ValueError(f"--weights {given}: the folder records that it holds the {recorded} weights")
    if recorded or given:
        return recorded or given  # type: ignore[return-value]
    raise ValueError(
        "cannot tell whether these are EMA or raw weights: pass --weights ema or --weights raw "
        "(samples of EMA weights are better: FID 3 instead of 12 for CIFAR-10)"
    )


def to_diffusers(source: Path, target: Path, weights: str | float = "ema") -> str:
    """Converts a run into a diffusers pipeline whose scheduler samples as the run does.

    `weights` is "ema" for the averaged parameters, "raw" for those that the optimizer updates, or the relative length
    of another average.

    Raises ValueError for a run whose network or sampler diffusers does not have.
    """
    run = workdir.load(source, weights)
    network = run.experiment.network
    if not isinstance(network, UNet):
        raise ValueError(f"the network of {source} is a {type(network).__name__}: diffusers has a model for UNet only")
    fields = {name: getattr(network, name) for name in UNet.__dataclass_fields__}
    record = workdir.read_record(source)
    origin = {"weights": workdir.weights_in(source, run.step, weights), "null_class": fields["num_classes"] is not None}
    content = folders.Folder(
        unet=unets.to_config(fields, run.experiment.data.image_shape),
        scheduler=schedulers.to_config(scheduler_knobs(run.experiment)),
        tensors=tensors.from_params(run.params, len(fields["multipliers"])),
        origin=origin | {"step": run.step, "experiment": record["experiment"], "knobs": record["knobs"]},
    )
    with whole_folder(target) as part:
        folders.write(part, content)
    return f"{target}: DiffusionPipeline.from_pretrained reads it; {origin['weights']} weights of step {run.step}"


def scheduler_knobs(experiment: Experiment) -> dict[str, Any]:
    """The knobs of `interop.schedulers` for the experiment's schedule, parameterization and sampler.

    Raises ValueError for one that diffusers does not have.
    """
    parameterization, clip = experiment.parameterization, experiment.parameterization.clip
    sampler = next((name for name, kind in SAMPLERS.items() if kind is experiment.sampler), None)
    variance = getattr(parameterization.variance, "__name__", None)
    known = (
        experiment.process.family.name == "gaussian",
        parameterization.name in schedulers.PREDICTIONS.values(),
        variance in schedulers.VARIANCES.values(),
        sampler in schedulers.SAMPLERS.values(),
        clip is None or clip[0] == -clip[1],
    )
    if not all(known):
        raise ValueError(
            f"diffusers has no scheduler for this experiment: parameterization {parameterization.name}, variance "
            f"{variance or 'learned'}, clip {clip}, sampler {sampler}"
        )
    return _schedule_knobs(experiment.process.schedule) | {
        "prediction": parameterization.name,
        "variance": variance,
        "clip": None if clip is None else clip[1],
        "sampler": sampler,
    }


COSINE = {"offset": 0.008, "max_beta": 0.999}
"""The constants of diffusers' cosine schedule, which its config cannot change."""


def _schedule_knobs(schedule: Schedule) -> dict[str, Any]:
    """The schedule by its name where diffusers has it, otherwise by its betas."""
    T, numbers = schedule.num_steps, dict(schedule.numbers)
    if schedule.name in schedulers.SCHEDULES.values() and (schedule.name != "cosine" or numbers == COSINE):
        ends = {name: numbers.get(name, default) for name, default in (("beta_1", 1e-4), ("beta_T", 0.02))}
        return {"timesteps": T, "schedule": schedule.name, **ends, "betas": None}
    t = np.arange(1, T + 1)
    betas = tuple(np.asarray(schedule.between(t - 1, t, 1)[1], float).tolist())
    return {"timesteps": T, "schedule": "betas", "beta_1": betas[0], "beta_T": betas[-1], "betas": betas}
