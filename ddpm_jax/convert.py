"""What `convert` does: a folder of diffusers into a workdir, and a run into such a folder."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ddpm_jax import recipes, workdir
from ddpm_jax.diffusion import parameterizations, schedules
from ddpm_jax.diffusion.parameterizations import Parameterization
from ddpm_jax.diffusion.schedules import Schedule
from ddpm_jax.experiment import Experiment, Params, shapes
from ddpm_jax.interop import folders, tensors, unets
from ddpm_jax.interop import schedulers as configs
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
    weights = weights or _told_weights(content)
    fields = unets.to_fields(content.unet)
    told = content.tensors
    if content.origin.get("null_class"):
        fields["num_classes"] -= 1
    else:
        told = tensors.with_null_class(told)
    knobs = fields | configs.to_knobs(content.scheduler) | {name: value for name, value in data.items() if value}
    recipe = recipes.find("imported")
    experiment = recipes.read(recipe)(**knobs)
    params = tensors.to_params(told, shapes(experiment), len(fields["multipliers"]))
    _write_workdir(target, recipe, experiment, knobs, params, {"weights": weights, "converted": str(source.absolute())})
    return f"the run in {target}: {weights} weights; ddpm-jax sample {target}"


def _told_weights(content: folders.Folder) -> str:
    if "weights" in content.origin:
        return content.origin["weights"]
    if content.unet.keys() & unets.AVERAGE:
        return "ema"
    raise ValueError(
        "nothing here tells which weights these are: --weights ema for the average, --weights raw for what the "
        "optimizer left (their samples differ: FID 3.2 and 12 for CIFAR-10)"
    )


def _write_workdir(
    target: Path, recipe: Path, experiment: Experiment, knobs: dict[str, Any], params: Params, more: dict[str, Any]
) -> None:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        workdir.prepare(part, recipe, knobs, **more)
        with checkpoints.manager(part / "checkpoints") as manager:
            checkpoints.save(manager, create(params, experiment.optimizer))
        part.chmod(0o755)  # mkdtemp's are for the user alone
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def export(source: Path, target: Path) -> str:
    """A run's averaged parameters as a folder of diffusers, with a DDPMScheduler that samples as the run does.

    Raises ValueError for a run that diffusers has no model or scheduler for.
    """
    run = workdir.load(source)
    network = run.experiment.network
    if not isinstance(network, UNet):
        raise ValueError(f"the network of {source} is no UNet: diffusers has no {type(network).__name__}")
    fields = {name: getattr(network, name) for name in UNet.__dataclass_fields__}
    config = unets.to_config(fields, run.experiment.data.image_shape)
    origin = json.loads((source / "experiment.json").read_text())
    told = {"weights": workdir.weights(source, run.step), "null_class": fields["num_classes"] is not None}
    content = folders.Folder(
        unet=config,
        scheduler=configs.to_config(scheduler_knobs(run.experiment)),
        tensors=tensors.from_params(run.params, len(fields["multipliers"])),
        origin=told | {"step": run.step, "experiment": origin["experiment"], "knobs": origin["knobs"]},
    )
    folders.write(target, content)
    return f"{target}: DDPMPipeline.from_pretrained reads it; {told['weights']} weights of step {run.step}"


def scheduler_knobs(experiment: Experiment) -> dict[str, Any]:
    """What `interop.schedulers` calls the experiment's process and reading, found by trying each on a few outputs.

    Raises ValueError where none of them reads the network as the experiment does.
    """
    for named, reading in _readings(experiment):
        if _agree(reading, experiment):
            return _schedule_knobs(experiment.process.schedule) | named
    raise ValueError("diffusers has no scheduler that reads this network's output as the experiment does")


def _readings(experiment: Experiment) -> Iterator[tuple[dict[str, Any], Parameterization]]:
    process, clip = experiment.process, _clip(experiment)
    for prediction in configs.PREDICTIONS.values():
        for variance in sorted(set(configs.VARIANCES.values())):
            reading = getattr(parameterizations, prediction)(process, getattr(parameterizations, variance))
            clipped = reading if clip is None else parameterizations.clipped(process, reading, -clip, clip)
            yield {"prediction": prediction, "variance": variance, "clip": clip}, clipped


def _clip(experiment: Experiment) -> float | None:
    """The largest estimate of x_0 that an output can give, if there is one."""
    T, x_t = experiment.process.schedule.num_steps, jnp.zeros((1, 1, 1, experiment.data.image_shape[-1]))
    highest = max(float(experiment.parameterization.x_0(x_t + size, x_t, T).max()) for size in (-1e6, 1e6))
    return highest if highest < 1e4 else None


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
    ends = _typed(betas[0]), _typed(betas[-1])
    wider = _sigmoid_ends(betas[0], betas[-1])
    named = {
        "linear": (schedules.linear(T, *ends), ends),
        "quadratic": (schedules.quadratic(T, *ends), ends),
        "cosine": (schedules.cosine(T), ends),
        "sigmoid": (schedules.sigmoid(T, *wider), wider),
    }
    for name, (each, (beta_1, beta_T)) in named.items():
        if all(np.allclose(ours, theirs, rtol=1e-5, atol=0) for ours, theirs in zip(schedule, each, strict=True)):
            return {"timesteps": T, "schedule": name, "beta_1": beta_1, "beta_T": beta_T, "betas": None}
    return {"timesteps": T, "schedule": "betas", "beta_1": ends[0], "beta_T": ends[1], "betas": betas}


def _sigmoid_ends(first: float, last: float) -> tuple[float, float]:
    """The two betas between which a sigmoid schedule runs that begins and ends so: it reaches neither."""
    short = 1 / (1 + math.exp(6))
    rise = (last - first) / (1 - 2 * short)
    return _typed(first - rise * short), _typed(last + rise * short)


def _typed(beta: float) -> float:
    """As it was typed, before float32 gave it other last digits."""
    return float(f"{beta:.6g}")
