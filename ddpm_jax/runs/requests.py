"""The options of the commands that work on a run, as dataclasses; their docstrings are the help.

Each class is both the command line of a command and the argument of the function that carries it out. Nothing heavy is
imported here, so that ``--help`` answers at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SamplerName = Literal["ancestral", "ddim", "dpm++2m", "dpm++3m", "dpm++2m-sde", "dpm++2s", "heun", "plms", "pndm"]
"""The keys of ``diffusion.samplers.SAMPLERS``."""
SpacingName = Literal["even", "quadratic", "leading", "linspace", "karras", "logsnr"]
"""The keys of ``diffusion.samplers.SPACINGS``."""
ModelSpacingName = Literal[SpacingName, "optimal"]
"""The spacings by name, and "optimal", which is computed from statistics of a run: see ``runs.steps``."""
VarianceName = Literal["fixed_small", "fixed_large", "analytic"]
"""The variances of ``runs.statistics.VARIANCES``, and "analytic", which is computed from statistics of a run."""
AcceleratorName = Literal["v4", "v5e", "v5p", "v6e", "A100", "A100-40GB", "H100", "H200", "B200"]
"""The names in ``runs.accelerators.ACCELERATORS``."""
WeightsName = Literal["ema", "raw"] | float
"""ema, raw, or the relative length of an average that is computed after training."""
FeatureName = Literal["inception", "inception-pytorch-fid", "inception-clean", "pixels"]
"""The keys of ``runs.features.RESIZINGS``, and "pixels"."""
CheckpointName = Literal["newest", "best"]
"""The newest checkpoint of a run, or the one with the least value of the metric of ``train --keep-best``."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that carry out a command together; each is started with the same command line."""

    coordinator: str | None = None
    """HOST:PORT of process 0. Not needed with SLURM, Open MPI, Kubernetes or on a TPU pod."""
    num_processes: int | None = None
    """Number of processes in the run (with --coordinator)."""
    process_id: int | None = None
    """Number of this process, from 0 (with --coordinator)."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How a train step is spread over devices."""

    mesh: str | None = None
    """Number of devices on each axis of the mesh, such as data=4,fsdp=2. Both axes divide the batch; fsdp also divides
    parameters, averages and optimizer state. Default: all devices on data."""
    accumulate: int = 1
    """Number of parts that each batch is split into, computed one after the other: less memory, more time."""


@dataclass(frozen=True, kw_only=True)
class Evaluations:
    """What is done every `evaluate_every` steps of training, if the experiment has such a period."""

    keep_best: Literal["bpd", "frechet"] | None = None
    """Also keep the checkpoint with the least bits/dim of test examples (bpd) or the least Frechet distance of samples
    (frechet) of the evaluations during training; sample --checkpoint best reads it."""
    features: FeatureName = "pixels"
    """Features of the Frechet distance during training: the pixels, or those of the Inception network."""
    inception_weights: Path | None = None
    """File of the weights of the Inception network, as for evaluate."""
    samples: int = 256
    """Number of samples of this distance, whose bias is large where they are few."""


@dataclass(frozen=True, kw_only=True)
class Execution(Placement, Evaluations):
    """How a run is executed. It may differ each time the run is resumed."""

    on_nan: Literal["stop", "skip"] = "stop"
    """At a loss or gradient that is not finite: stop the run, or skip the update and count it in the log."""
    workers: int = 16
    """Number of threads that read and decode the data."""
    profile: str | None = None
    """START:STOP, the steps to trace for TensorBoard; the trace is written to profile/ in the workdir."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest(Execution, Processes):
    """Trains an experiment, or resumes the run in the workdir."""

    workdir: Path
    """Folder of the run, which is created if it does not exist."""
    start_from: Path | None = None
    """Workdir of another run, or the name of a model that comes with the library, whose parameters are those of step 0.
    All else is this run's own: experiment, data, optimizer, and averages, which start there too."""
    weights: WeightsName = "ema"
    """Which parameters of that run to start from: ema (their moving average), raw (those that its optimizer updated) or
    an average of this relative length."""
    checkpoint: CheckpointName = "newest"
    """Which checkpoint of that run to start from: the newest, or the best if it keeps one."""
    data_changed: bool = False
    """Resume although files were added to or removed from the data. From then on the examples come in another order."""


@dataclass(frozen=True)
class SampleRequest(Processes):
    """Draws images from a trained run. Image i depends on the seed and i only."""

    workdir: Path
    """Folder of the run, or the name of a model that comes with the library, such as digits."""
    out: Path | None = None
    """Output: a .png (grid), a .npz (arr_0 uint8 [N, H, W, C]; arr_1 the labels), or a folder of PNGs. Default: a grid
    in samples/ of the workdir; of a model, in outputs/NAME/samples/."""
    num: int = 64
    """Number of images."""
    seed: int = 0
    """Seed of the noise, 0 to 2^32 - 1."""
    sampler: SamplerName | None = None
    """Sampler: ancestral and ddim of first order, dpm++, heun, plms and pndm of higher order for few steps. Default:
    the experiment's own; ddim if --eta is given."""
    steps: int | None = None
    """Number of steps, 1 to T. Default: T."""
    spacing: ModelSpacingName = "even"
    """Spacing of the steps over 0..T: even; dense near the data: quadratic, karras, logsnr; leading and linspace are
    those of diffusers; optimal has the best bound on the likelihood (Watson et al. 2021), and in the papers worse
    pictures than even steps (a greater Frechet distance). It is computed from statistics of the network without
    guidance, which are estimated on training images the first time; so it excludes --guidance."""
    variance: VarianceName | None = None
    """Variance of the steps of ancestral sampling: fixed_small, fixed_large, or analytic (Bao et al. 2022), which is
    computed from the same statistics, and excludes --guidance. Default: the experiment's own."""
    eta: float | None = None
    """Noise of ddim and dpm++, from 0 (deterministic) to 1. Default: 0; with dpm++2m-sde 1."""
    weights: WeightsName = "ema"
    """Parameters to draw with: ema (their moving average), raw (those that the optimizer updates), or an average of
    this length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to draw with: the newest, or the best of a run that keeps it (train --keep-best)."""
    label: int | None = None
    """Class to draw, for a class-conditional run or with --classifier. Default: each class in turn."""
    guidance: float | None = None
    """Scale of guidance: 1 is none, more is nearer to the class and less diverse. Classifier-free guidance, for a
    class-conditional run, or autoguidance with --guide: each step costs two calls of a network. With --classifier 0 is
    none, and each step costs a call of the network and a gradient of the classifier."""
    guidance_interval: tuple[float, float] | None = None
    """LOW HIGH: guide only where LOW < sigma_t / alpha_t <= HIGH, the ratio of noise to signal (with --guidance)."""
    guide: Path | None = None
    """Workdir of a worse run of the same kind, such as one with fewer steps or a smaller network. The samples are
    guided away from its estimates (Karras et al. 2024), with labels or without (with --guidance)."""
    classifier: Path | None = None
    """Workdir of a classifier of noisy images, with the same images, T and schedule. The samples are guided to a class
    (Dhariwal & Nichol 2021), also those of a run that was trained without labels (with --guidance)."""
    threshold: float | None = None
    """Dynamic thresholding: the quantile of the absolute pixels of an estimate of x_0, such as 0.995, that is scaled
    down to the range of the data where it exceeds it. For strong guidance. Default: none."""
    batch_size: int | None = None
    """Number of images that each device draws at a time. Changes at most the last bit of a pixel. Default: 16 on a CPU,
    else 256, and fewer for images larger than 64x64."""
    overwrite: bool = False
    """Replace an existing output."""


@dataclass(frozen=True, kw_only=True)
class PlanRequest(Placement):
    """Computes the cost of an experiment without training it."""

    accelerator: AcceleratorName | None = None
    """Accelerator for which to estimate whether the run fits and how long it takes."""
    compile: bool = False
    """Compile train step, sampler and bound with the accelerator's own compiler, which this machine can run without the
    accelerator: memory, traffic, messages and the least time of each (with --accelerator; takes minutes for a TPU)."""
    utilisation: float = 0.4
    """Share of the accelerator's peak FLOP/s, above 0 and up to 1, at which the time is estimated."""
    json: Path | None = None
    """JSON file for the costs."""


@dataclass(frozen=True, kw_only=True)
class VerifyRequest:
    """Compares an experiment with the numbers that its paper states, without training."""

    workdir: Path | None = None
    """Folder of a run of this experiment, whose measured results are shown too."""
    json: Path | None = None
    """JSON file for the comparison."""
    markdown: bool = False
    """Print one row of a Markdown table instead."""


@dataclass(frozen=True)
class ConvertRequest:
    """Converts a folder of the diffusers library (UNet2DModel and scheduler) into a workdir, or the other way round.

    Also converts a file of improved-diffusion or guided-diffusion (OpenAI) into a workdir.
    """

    source: Path
    """A diffusers folder (config.json, scheduler_config.json and safetensors, or a pipeline); a file of
    improved-diffusion or guided-diffusion (.pt or .safetensors); or a workdir, or the name of a model that comes with
    the library."""
    target: Path
    """The workdir or pipeline folder to create."""
    weights: WeightsName | None = None
    """ema (the moving average of the parameters) or raw (the parameters that the optimizer updates). For a workdir:
    which of them to convert, or an average of this length relative to the run, such as 0.1; by default ema. For a
    folder or file: which of them it holds; required unless the folder records it, or the file has a name like
    ema_0.9999_500000.pt or model500000.pt."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint of a workdir to convert: the newest, or the best of a run that keeps it (train --keep-best)."""
    data: str | None = None
    """TFDS data set of the new run, which evaluate, study and train read."""
    test_split: str | None = None
    """Name of the test split of that data set. Default: test."""
    folder_of_images: str | None = None
    """Folder or zip of pictures to use instead of a TFDS data set."""
    test_percent: int | None = None
    """Percentage of these pictures for the test split."""
    image_size: int | None = None
    """Height and width of the images, in pixels. This and the following options are for a file of improved-diffusion or
    guided-diffusion, which does not record them; they are those of its training, and known for published ones."""
    timesteps: int | None = None
    """Number of diffusion steps T (their diffusion_steps)."""
    schedule: Literal["linear", "cosine"] | None = None
    """Schedule of the betas (their noise_schedule); linear is that of Ho et al. 2020 times 1000 / T."""
    rescale_timesteps: bool | None = None
    """Whether the network has the timestep times 1000 / T; by default True in improved-diffusion and False in
    guided-diffusion. Without effect for T = 1000."""
    heads: int | None = None
    """Number of attention heads (their num_heads, by default 4)."""
    head_dim: int | None = None
    """Channels per attention head (their num_head_channels), instead of a number of heads."""
    attention_order: Literal["legacy", "new"] | None = None
    """Order of query, key and value in the tensors: new for use_new_attention_order. Default: legacy, as theirs."""

    def data_knobs(self) -> dict:
        """The data options that are given, which are knobs of the experiment ``imported``."""
        return self._given("data", "test_split", "folder_of_images", "test_percent")

    def openai_options(self) -> dict:
        """The options that are given of those that a file of improved-diffusion or guided-diffusion needs."""
        network = ("heads", "head_dim", "attention_order")
        return self._given("image_size", "timesteps", "schedule", "rescale_timesteps", *network)

    def _given(self, *names: str) -> dict:
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class PackRequest:
    """Writes the parameters of a run with their card into a small folder, which the other commands read as a run.

    The folder contains no program. The run must be of an experiment that comes with the library, which draws the same
    images as the copy in the workdir.
    """

    workdir: Path
    """Folder of the run."""
    out: Path
    """Folder to create."""
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    """Type of the stored parameters. The card states their bits/dim, and that of the parameters in float32."""
    experiment: str | None = None
    """Name of the experiment that comes with the library. Default: the one with the file name of the run's."""
    num: int | None = None
    """Number of test examples on which to measure, from the first on. Default: all."""
    times: int = 50
    """Number of random t per example at which to measure, 1 to T - 1."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to write: the newest, or the best of a run that keeps it (train --keep-best)."""
    weights: WeightsName = "ema"
    """Parameters to write: ema (their moving average), raw (those that the optimizer updates), or an average of this
    length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""


@dataclass(frozen=True)
class ExportRequest:
    """Writes the sampler of a run, with its parameters, as one StableHLO program, for JAX and flatbuffers alone."""

    workdir: Path
    """Folder of the run, or the name of a model that comes with the library, such as digits."""
    out: Path
    """File to write."""
    num: int = 16
    """Number of images of a call."""
    sampler: SamplerName | None = None
    """Sampler. Default: the experiment's own."""
    platforms: tuple[Literal["cpu", "cuda", "rocm", "tpu"], ...] = ("cpu", "cuda", "tpu")
    """Platforms on which the program can run."""
    weights: WeightsName = "ema"
    """Parameters to draw with: ema (their moving average), raw (those that the optimizer updates), or an average of
    this length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to draw with: the newest, or the best of a run that keeps it (train --keep-best)."""
    overwrite: bool = False
    """Replace an existing file."""
