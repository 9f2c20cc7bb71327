"""What `convert` does: a folder of diffusers into a workdir, and a run into such a folder."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ddpm_jax import recipes, workdir
from ddpm_jax.diffusion import parameterizations, samplers, schedules
from ddpm_jax.diffusion.parameterizations import Parameterization
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.experiment import Experiment, out_channels, shapes
from ddpm_jax.files import whole_folder
from ddpm_jax.interop import folders, schedulers, tensors, unets
from ddpm_jax.networks import UNet
from ddpm_jax.training import checkpoints, create


def convert(source: Path, target: Path, weights: str | None, data: dict[str, Any]) -> str:
    """Converts `source` into `target`, which must not exist yet, and says so in a line.

    `weights` is "ema" or "raw": which parameters a folder of diffusers holds; None where it tells so itself. `data` are
    the knobs of the data that the run is measured with. Raises ValueError or FileNotFoundError for what cannot be done.
    """
    if target.exists():
        raise ValueError(f"{target} exists: choose another name")
    if (source / "experiment.json").is_file():
        given = [f"--{name.replace('_', '-')}" for name in ("weights", *data) if (data | {"weights": weights})[name]]
        if given:
            raise ValueError(f"{', '.join(given)}: these are for a folder of diffusers, {source} is a workdir")
        return export(source, target)
    return load(source, target, weights, data)


def load(source: Path, target: Path, weights: str | None, data: dict[str, Any]) -> str:
    """A folder of diffusers as the workdir `target`, at step 0."""
    content = folders.read(source)
    weights = _checked_weights(content, weights)
    fields, told = unets.to_fields(content.unet), content.tensors
    if content.origin.get("null_class"):
        fields["num_classes"] -= 1
    else:
        told = tensors.with_null_class(told)
        if fields["num_classes"] and data["folder_of_images"]:
            raise ValueError("--folder-of-images: this network is told a class, and a folder has none; see --data")
    recipe = recipes.shipped()["imported"]
    make = recipes.read(recipe)
    named = {name: value for name, value in data.items() if value is not None}
    knobs = recipes.defaults(make) | fields | schedulers.to_knobs(content.scheduler) | named
    experiment = make(**knobs)
    params = tensors.to_params(told, shapes(experiment), len(fields["multipliers"]))
    with whole_folder(target) as part:
        workdir.prepare(part, recipe, knobs, weights=weights, converted=str(source.absolute()))
        with checkpoints.manager(part / "checkpoints") as manager:
            checkpoints.save(manager, create(params, experiment.optimizer))
    return f"the run in {target}: {weights} weights; ddpm-jax sample {target}"


def _checked_weights(content: folders.Folder, given: str | None) -> str:
    """Which weights the folder holds, as it says itself or as it is said to."""
    told = content.origin.get("weights") or ("ema" if content.unet.keys() & unets.AVERAGE else None)
    if told and given and told != given:
        raise ValueError(f"--weights {given}: the folder says that it holds the {told} weights")
    if told or given:
        return told or given  # type: ignore[return-value]
    raise ValueError(
        "nothing here tells which weights these are: --weights ema for the average, --weights raw for what the "
        "optimizer left (their samples differ: FID 3.2 and 12 for CIFAR-10)"
    )


def export(source: Path, target: Path) -> str:
    """A run's averaged parameters as a folder of diffusers, with a scheduler that samples as the run does.

    Raises ValueError for a run that diffusers has no model or scheduler for.
    """
    run = workdir.load(source)
    network = run.experiment.network
    if not isinstance(network, UNet):
        raise ValueError(f"the network of {source} is no UNet: diffusers has no {type(network).__name__}")
    fields = {name: getattr(network, name) for name in UNet.__dataclass_fields__}
    origin = json.loads((source / "experiment.json").read_text())
    told = {"weights": workdir.weights(source, run.step), "null_class": fields["num_classes"] is not None}
    content = folders.Folder(
        unet=unets.to_config(fields, run.experiment.data.image_shape),
        scheduler=schedulers.to_config(scheduler_knobs(run.experiment)),
        tensors=tensors.from_params(run.params, len(fields["multipliers"])),
        origin=told | {"step": run.step, "experiment": origin["experiment"], "knobs": origin["knobs"]},
    )
    with whole_folder(target) as part:
        folders.write(part, content)
    return f"{target}: DiffusionPipeline.from_pretrained reads it; {told['weights']} weights of step {run.step}"


def scheduler_knobs(experiment: Experiment) -> dict[str, Any]:
    """What `interop.schedulers` calls the experiment's process and reading, found by trying each on a few outputs.

    Raises ValueError where none of them reads the network as the experiment does.
    """
    sampler = next((name for name, kind in SAMPLERS.items() if kind is experiment.sampler), None)
    if sampler is not None and out_channels(experiment) == experiment.data.image_shape[-1]:
        for named, reading in _readings(experiment):
            if _agree(reading, experiment):
                return _schedule_knobs(experiment.process.schedule) | named | {"sampler": sampler}
    raise ValueError("diffusers has no scheduler that samples as this experiment does")


SAMPLERS = {"ancestral": samplers.ddpm, "ddim": samplers.ddim}


def _readings(experiment: Experiment) -> Iterator[tuple[dict[str, Any], Parameterization]]:
    process, clip = experiment.process, _clip(experiment)
    for prediction in schedulers.PREDICTIONS.values():
        for variance in sorted(set(schedulers.VARIANCES.values())):
            reading = getattr(parameterizations, prediction)(process, getattr(parameterizations, variance))
            clipped = reading if clip is None else parameterizations.clipped(process, reading, -clip, clip)
            yield {"prediction": prediction, "variance": variance, "clip": clip}, clipped


def _clip(experiment: Experiment) -> float | None:
    """The largest estimate of x_0 that an output can give, if there is one."""
    T, x_t = experiment.process.schedule.num_steps, jnp.zeros((1, 1, 1, experiment.data.image_shape[-1]))
    highest = max(float(experiment.parameterization.x_0(x_t + size, x_t, T).max()) for size in (-1e6, 1e6))
    return _typed(highest, 6) if highest < 1e5 else None


def _agree(reading: Parameterization, experiment: Experiment) -> bool:
    """Whether it gives the experiment's kernels, at outputs small and large."""
    T, channels = experiment.process.schedule.num_steps, experiment.data.image_shape[-1]
    output, x_t = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4, channels)) * 3, jnp.float32)
    kernels = [
        (experiment.parameterization.kernel(output, x_t, t, t - 1), reading.kernel(output, x_t, t, t - 1))
        for t in {T, max(1, T // 2), min(2, T)}
    ]
    both = [numbers for pair in kernels for numbers in zip(*pair, strict=True)]
    return all(np.allclose(ours, theirs, rtol=1e-5, atol=1e-6) for ours, theirs in both)


def _schedule_knobs(schedule: Schedule) -> dict[str, Any]:
    """The schedule by its name where it has one, or by its betas."""
    T = schedule.num_steps
    t = np.arange(1, T + 1)
    betas = tuple(np.asarray(schedule.between(t - 1, t, 1)[1], float).tolist())
    for name, beta_1, beta_T in _names(betas[0], betas[-1]):
        try:
            each = schedules.cosine(T) if name == "cosine" else getattr(schedules, name)(T, beta_1, beta_T)
        except ValueError:  # no schedule begins and ends so
            continue
        if all(np.allclose(ours, theirs, rtol=1e-5, atol=0) for ours, theirs in zip(schedule, each, strict=True)):
            return {"timesteps": T, "schedule": name, "beta_1": beta_1, "beta_T": beta_T, "betas": None}
    return {"timesteps": T, "schedule": "betas", "beta_1": betas[0], "beta_T": betas[-1], "betas": betas}


def _names(first: float, last: float) -> Iterator[tuple[str, float, float]]:
    """Schedules that begin and end so, with the two betas as they may have been typed.

    float32 has given them other last digits. A sigmoid reaches neither of its own.
    """
    short = 1 / (1 + math.exp(6))
    beyond = (last - first) / (1 - 2 * short) * short
    for digits in (6, 5, 4, 3):
        for name in ("linear", "quadratic", "cosine"):
            yield name, _typed(first, digits), _typed(last, digits)
        yield "sigmoid", _typed(first - beyond, digits), _typed(last + beyond, digits)


def _typed(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")
