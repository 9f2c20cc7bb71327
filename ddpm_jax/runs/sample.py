"""Sampling from a run into a file or folder. Each image has its own random key."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ddpm_jax.diffusion.samplers import SAMPLERS
from ddpm_jax.runs import classifiers, models, outputs, workdir
from ddpm_jax.runs.chunks import Work, chunk_size, on_devices
from ddpm_jax.runs.reporter import Reporter
from ddpm_jax.runs.requests import SampleRequest
from ddpm_jax.runs.steps import Model, check_guidance, model, without_statistics
from ddpm_jax.sampling import Run, sample_fn
from ddpm_jax.training import distributed
from ddpm_jax.training.keys import check_seed, keys


def default_batch_size(image_shape: tuple[int, ...], cpu: bool | None = None) -> int:
    """The default number of images that a device draws at a time: small on a CPU, where more are no faster.

    `cpu` is whether it is one; default: the device that JAX uses.
    """
    cpu = jax.default_backend() == "cpu" if cpu is None else cpu
    return chunk_size(16 if cpu else 256, image_shape)


def sample_to_file(request: SampleRequest, reporter: Reporter | None = None) -> str:
    """Draws the images and writes them to the output of the request. Returns a line that names it.

    All devices of all processes share the images; every process must call this function. Images are kept beside the
    output as they are drawn, so that the same request resumes an interrupted one. An output that holds these images
    already is kept; another is replaced only with ``overwrite``. Raises ValueError for options
    that are out of range or do not fit the run, FileNotFoundError for a folder without a run.
    """
    with distributed.all_or_none(f"another process cannot sample {request.workdir}"):
        check(request)
        workdir.find(request.workdir)
    run, guide = workdir.load(request.workdir, request.weights, request.checkpoint), guide_of(request)
    out = request.out or models.home(request.workdir) / "samples" / _name(request, run)
    outputs.check_name(out, images=len(run.experiment.data.image_shape) == 3)
    check_run(run, request, guide)
    reporter = reporter or Reporter()
    chosen = model(run, request, reporter)
    provenance = workdir.provenance(request.workdir, run, **_identity(request, run, guide, chosen))
    output = outputs.Output(out, provenance, request.overwrite)
    (there,) = distributed.from_leader([not request.overwrite and output.holds_images()])
    if there:
        if distributed.is_leader():
            outputs.discard_part(output)
        return f"{out} holds these images already"
    condition = labels_of(run, request, guide)
    outputs.write(output, draws(run, request, condition, guide, chosen), condition, reporter)
    return f"{request.num} images in {out}"


def _sampler(run: Run, request: SampleRequest, guide: Run | None, chosen: Model) -> Callable[..., Array]:
    """The function ``sample(params, keys, condition)`` of the request. Raises ValueError if the run has none such."""
    return sample_fn(
        run.experiment,
        None if request.sampler is None else SAMPLERS[request.sampler],
        steps=request.steps,
        eta=request.eta,
        spacing=chosen.spacing,
        guidance=request.guidance,
        interval=request.guidance_interval,
        guide=guide,
        variance=chosen.variance,
        threshold=request.threshold,
        schedule=run.schedule,
    )


def check_run(run: Run, request: SampleRequest, guide: Run | None = None) -> None:
    """Raises ValueError for a request that the run cannot carry out, before any statistics are estimated."""
    _sampler(run, request, guide, without_statistics(request))


def check(request: SampleRequest) -> None:
    """Raises ValueError if `num`, `batch_size` or `seed` is out of range, or if options exclude each other."""
    for name, value in (("num", request.num), ("batch-size", request.batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, got {value}")
    check_seed(request.seed)
    check_guidance(request)
    if request.variance is not None and (request.sampler not in (None, "ancestral") or request.eta is not None):
        raise ValueError(f"--variance {request.variance}: only --sampler ancestral has a variance to choose")


def sampler_name(request: SampleRequest, run: Run) -> str:
    """The name of the sampler of this request; "own" for a sampler of the experiment that SAMPLERS does not have."""
    if request.sampler is not None:
        return request.sampler
    if request.eta is not None:
        return "ddim"
    return next((name for name, kind in SAMPLERS.items() if kind is run.experiment.sampler), "own")


def _identity(request: SampleRequest, run: Run, guide: Run | None, chosen: Model) -> dict[str, Any]:
    """The options that determine the images of a run, as they are recorded. The batch size is not one of them."""
    names = ("num", "seed", "steps", "spacing", "eta", "label")
    identity = {name: getattr(request, name) for name in names} | {"sampler": sampler_name(request, run)}
    later = _guiding(request, guide) | {name: getattr(request, name) for name in ("variance", "threshold")}
    later |= {"statistics": chosen.measured}
    return identity | {name: value for name, value in later.items() if value is not None}


def _guiding(request: SampleRequest, guide: Run | None) -> dict[str, Any]:
    """The options of guidance; records of older versions lack them, as do those of samples without guidance."""
    interval = request.guidance_interval
    return {
        "guidance": request.guidance,
        "guidance_interval": interval and list(interval),
        "guide": guide and request.guide and workdir.provenance(request.guide, guide),
        "classifier": guide and request.classifier and workdir.provenance(request.classifier, guide),
    }


def guide_of(request: SampleRequest) -> Run | None:
    """The run that guides: a model, with the same kind of weights, or a classifier with its averaged parameters.

    They are those of its newest checkpoint. Raises FileNotFoundError for a folder without a run, ValueError for a run
    of the other kind, or two that guide.
    """
    if request.classifier is not None:
        if request.guide is not None:
            raise ValueError("--classifier and --guide exclude each other: leave one out")
        return classifiers.load(request.classifier, "--classifier")
    run = None if request.guide is None else workdir.load(request.guide, request.weights)
    if run is not None and run.experiment.is_classifier:
        raise ValueError(f"--guide {request.guide}: the run there is a classifier: give it as --classifier")
    return run


def draws(
    run: Run,
    request: SampleRequest,
    condition: np.ndarray | None,
    guide: Run | None = None,
    chosen: Model | None = None,
) -> Work:
    """The samples of the request, as chunks {"images": [batch, ...]}, with the labels `condition`.

    `chosen` is the result of `model`, by default computed here. The last chunk is computed at full size, so there is
    one compilation, and image i is the same to the bit for every `num` and on any number of devices and processes.
    """
    sample = _sampler(run, request, guide, chosen or model(run, request, Reporter()))
    size = request.batch_size or default_batch_size(run.experiment.data.image_shape)

    def one(shared, chunk):
        sample, params = shared
        first, batch_labels = chunk
        return sample(params, keys(request.seed, size, first), batch_labels)

    def chunk(first: int) -> Any:
        return np.int32(first), None if condition is None else np.resize(condition[first : first + size], size)

    shared = sample, run.params
    return on_devices(request.num, size, one, shared, chunk, lambda images: {"images": images}, "image")


def labels_of(run: Run, request: SampleRequest, guide: Run | None = None) -> np.ndarray | None:
    """The label of each image, int32 [num]; None for an unconditional run that no classifier guides.

    Raises ValueError for a wrong label.
    """
    classes = run.experiment.num_classes
    if guide is not None and guide.experiment.is_classifier:
        classes = guide.experiment.data.num_classes
    if classes is None:
        if request.label is not None:
            raise ValueError(f"--label {request.label}: leave it out, this run is not class-conditional")
        return None
    if request.label is not None and not 0 <= request.label < classes:
        raise ValueError(f"--label {request.label}: the classes are 0 to {classes - 1}")
    if request.label is None:
        return np.arange(request.num, dtype=np.int32) % classes
    return np.full(request.num, request.label, np.int32)


def _name(request: SampleRequest, run: Run) -> str:
    """The file name of the default output."""
    steps = "" if request.steps is None else f"_steps{request.steps}"
    spacing = "" if request.spacing == "even" else f"_{request.spacing}"
    eta = "" if request.eta is None else f"_eta{request.eta:g}"
    label = "" if request.label is None else f"_label{request.label}"
    guidance = "" if request.guidance is None else f"_guidance{request.guidance:g}"
    if request.guidance_interval is not None:
        guidance += "_from{:g}to{:g}".format(*request.guidance_interval)
    if (by := request.guide or request.classifier) is not None:
        guidance += f"_by_{by.resolve().name}"
    variance = "" if request.variance is None else f"_{request.variance}"
    threshold = "" if request.threshold is None else f"_threshold{request.threshold:g}"
    sampler = sampler_name(request, run)
    options = f"{steps}{spacing}{variance}{eta}{label}{guidance}{threshold}{workdir.marked(request.weights)}"
    return f"{sampler}{options}_seed{request.seed}_num{request.num}_at{run.step}.png"
