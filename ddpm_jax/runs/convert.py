"""Conversion between workdirs and folders of the diffusers library, and from files of OpenAI's programs."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax.diffusion.samplers import SAMPLERS
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.experiment import Experiment, Params, first_state, shapes
from ddpm_jax.interop import folders, openai, schedulers, tensors, unets
from ddpm_jax.networks import UNet
from ddpm_jax.runs import experiment_files, models, workdir
from ddpm_jax.runs.checks import check_network
from ddpm_jax.runs.requests import ConvertRequest
from ddpm_jax.system.files import whole_folder
from ddpm_jax.training import checkpoints


def convert(request: ConvertRequest) -> str:
    """Converts ``request.source`` into ``request.target``, which must not exist. Returns a line that names the result.

    Raises ValueError or FileNotFoundError for a folder that cannot be converted.
    """
    source, target = models.found(request.source), request.target
    if not source.exists():
        raise FileNotFoundError(f"there is no file or folder {source}: download it first")
    if target.exists():
        raise ValueError(f"{target} exists: choose another name")
    has_run = workdir.is_workdir(source)
    if request.checkpoint != "newest" and not has_run:
        raise ValueError(f"--checkpoint {request.checkpoint}: only for a workdir; leave it out, {source} is none")
    if source.is_file():
        return from_openai(request)
    if given := request.openai_options():
        raise ValueError(f"{_options(given)}: only for a file; leave it out, since {source} is a folder")
    if not has_run:
        return from_diffusers(request)
    if given := request.data_knobs():
        raise ValueError(f"{_options(given)}: only for other checkpoints; leave it out, since {source} is a workdir")
    return to_diffusers(source, target, request.weights or "ema", request.checkpoint)


def _options(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def from_openai(request: ConvertRequest) -> str:
    """Converts a file of improved-diffusion or guided-diffusion into a workdir. Returns a line that names it."""
    file = request.source
    weights = _agreeing(file, openai.weights_of(file), request.weights)
    options = _openai_options(file, request.openai_options())
    loaded, order = openai.read(file), options.get("attention_order", "legacy")
    heads = {"heads": options.get("heads", 1), "head_dim": options.get("head_dim")}
    fields: dict[str, Any] = openai.fields(loaded, options["image_size"]) | heads
    learned = fields["out_channels"] > fields["image_shape"][2]
    knobs = fields | _openai_process(options, "learned_range" if learned else "fixed_large")
    _write(request, knobs, weights, lambda like: openai.to_params(loaded, like, fields, order))
    return _made(request.target, weights)


def _openai_options(file: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The options of the training: those given, and those known for a published file.

    Raises ValueError for options that are missing, not positive, or contradict each other.
    """
    heads = {"heads", "head_dim"}
    if heads <= given.keys():
        raise ValueError("--heads and --head-dim exclude each other: leave one out")
    known = {
        name: value for name, value in openai.released(file).items() if not (name in heads and heads & given.keys())
    }
    options = known | given
    needed = [name for name in ("image_size", "timesteps", "schedule") if name not in options]
    needed += [] if heads & options.keys() else ["heads or --head-dim"]
    if options.get("timesteps", 1000) != 1000 and "rescale_timesteps" not in options:
        needed.append("rescale_timesteps")
    if needed:
        raise ValueError(f"{file} does not record the options of its training: pass {_options(needed)}")
    for name, value in options.items():
        if type(value) is int and value < 1:
            raise ValueError(f"{_options([name])} must be at least 1, got {value}")
    return options


def _openai_process(options: dict[str, Any], variance: str) -> dict[str, Any]:
    """The knobs of the process, for an experiment that samples as their programs do."""
    T = options["timesteps"]
    betas = {"beta_1": 0.1 / T, "beta_T": 20 / T}  # as `schedules.linear_scaled`
    scale = 1000 / T if options.get("rescale_timesteps") else 1.0
    return {"timesteps": T, "schedule": options["schedule"], **betas, "variance": variance, "time_scale": scale}


def from_diffusers(request: ConvertRequest) -> str:
    """Converts a diffusers folder into a workdir with a checkpoint of step 0. Returns a line that names it."""
    content = folders.read(request.source)
    recorded = content.origin.get("weights") or ("ema" if content.unet.keys() & unets.AVERAGE else None)
    weights = _agreeing(request.source, recorded, request.weights)
    fields, loaded = unets.to_fields(content.unet), content.tensors
    if content.origin.get("null_class"):
        fields["num_classes"] -= 1
    else:
        loaded = tensors.with_null_class(loaded)
    knobs = fields | schedulers.to_knobs(content.scheduler)
    if (fields["out_channels"] > fields["image_shape"][2]) != (knobs["variance"] == "learned_range"):
        raise ValueError(
            f"{unets.CONFIG}: out_channels {fields['out_channels']} does not fit {schedulers.CONFIG}: variance_type "
            f"{knobs['variance']}, since a learned variance needs twice the channels of the image, and no other does"
        )
    levels = len(fields["multipliers"])
    _write(request, knobs, weights, lambda like: tensors.to_params(loaded, like, levels))
    ignored, spaced = schedulers.ignored(content.scheduler), schedulers.SPACING
    note = f"; with --steps, at times spaced as {spaced}, not by {ignored} of the scheduler" if ignored else ""
    return _made(request.target, weights) + note


def _agreeing(source: Path, recorded: str | float | None, given: str | float | None) -> str | float:
    """Returns "ema", "raw" or a length, as recorded or given. Raises ValueError without either, or if they disagree."""
    if recorded and given and recorded != given:
        raise ValueError(f"--weights {given}: {source} records that it holds the {recorded} weights")
    if recorded or given in ("ema", "raw"):
        return recorded or given  # type: ignore[return-value]
    if given is not None:
        raise ValueError(f"--weights {given}: {source} does not record an average of this length; pass ema or raw")
    raise ValueError(
        "cannot tell whether these are EMA or raw weights: pass --weights ema or --weights raw "
        "(samples of EMA weights are better: FID 3 instead of 12 for CIFAR-10)"
    )


def _write(
    request: ConvertRequest, knobs: dict[str, Any], weights: str | float, params: Callable[[Params], Params]
) -> None:
    """Writes a workdir with the experiment ``imported`` and a checkpoint of step 0.

    `knobs` replace the defaults. ``params(like)`` returns the parameters, with the structure and shapes of `like`.
    """
    path = experiment_files.shipped()["imported"]
    function = experiment_files.read(path)
    knobs = experiment_files.defaults(function) | knobs | request.data_knobs()
    experiment = experiment_files.build(function, knobs)
    check_network(experiment)
    made = params(shapes(experiment))
    with whole_folder(request.target) as part:
        workdir.prepare(part, path, knobs, weights=weights, converted=str(request.source.absolute()))
        with checkpoints.manager(part / "checkpoints") as manager:
            checkpoints.save(manager, first_state(experiment, made))


def _made(target: Path, weights: str | float) -> str:
    return f"{target} holds the run with {weights} weights; ddpm-jax sample {target} draws images"


def to_diffusers(source: Path, target: Path, weights: str | float = "ema", checkpoint: str = "newest") -> str:
    """Converts a run into a diffusers pipeline whose scheduler samples as the run does.

    `weights` is "ema" for the averaged parameters, "raw" for those that the optimizer updates, or the relative length
    of another average. `checkpoint` is that of `workdir.load`.

    Raises ValueError for a run whose network or sampler diffusers does not have.
    """
    run = workdir.load(source, weights, checkpoint)
    network = run.experiment.network
    if not isinstance(network, UNet):
        raise ValueError(f"the network of {source} is a {type(network).__name__}: diffusers has a model for UNet only")
    fields = {name: getattr(network, name) for name in UNet.__dataclass_fields__}
    record = workdir.read_record(source)
    null_class = fields["num_classes"] is not None and fields["null_label"]
    origin = {"weights": workdir.weights_in(source, run.step, weights), "null_class": null_class}
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
    variance = parameterization.learned or getattr(parameterization.variance, "__name__", None)
    known = (
        experiment.process.family.name == "gaussian",
        parameterization.name in schedulers.PREDICTIONS.values(),
        variance in schedulers.VARIANCES.values(),
        sampler in schedulers.SAMPLERS.values(),
        variance != "learned_range" or sampler == "ancestral",  # their DDIMScheduler does not split the output
        clip is None or clip[0] == -clip[1],
    )
    if not all(known):
        raise ValueError(
            f"diffusers has no scheduler for this experiment: parameterization {parameterization.name}, variance "
            f"{variance}, clip {clip}, sampler {sampler}"
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
