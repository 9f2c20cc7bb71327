"""The options of ``evaluate``, as a dataclass; its docstrings are the help. Nothing heavy is imported here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ddpm_jax.runs.requests import (
    CheckpointName,
    FeatureName,
    ModelSpacingName,
    Processes,
    SampleRequest,
    SamplerName,
    VarianceName,
    WeightsName,
)

MetricName = Literal[
    "bpd",
    "K",
    "nll",
    "importance",
    "entropy",
    "parzen",
    "memorisation",
    "accuracy",
    "fid",
    "sfid",
    "kid",
    "pr",
    "prdc",
    "is",
    "authenticity",
]
"""The keys of ``runs.report.BOUND_TABLES`` and ``runs.report.ESTIMATES``."""
Dequantization = Literal["decoder", "uniform"]
Split = Literal["test", "train"]
OF_FEATURES = ("fid", "sfid", "kid", "pr", "prdc", "is", "authenticity")
"""The metrics of features of samples."""
OF_SAMPLES = ("parzen", *OF_FEATURES)
"""The metrics of samples that are drawn as the request describes."""
SAMPLES = 10_000
"""The default number of samples that are drawn."""


@dataclass(frozen=True)
class EvaluateRequest(Processes):
    """Measures a trained run, or images. The results are printed and added to evaluation.json in the workdir; of a
    model that comes with the library, in outputs/NAME."""

    workdir: Path
    """Folder of the run, or the name of a model that comes with the library, such as digits. Or images to measure,
    which other programs may have made: a .npz (arr_0 uint8 [N, H, W, C]) or a folder or zip of pictures; --reference is
    what they are compared with. Then the record is added to evaluation.json of the workdir that --reference names, if
    it names one."""
    metrics: tuple[MetricName, ...] | None = None
    """What to measure. bpd: bound on the negative log-likelihood in bits per dimension, with its parts and the
    progressive-coding curve. K: lower bound on the log-likelihood (Sohl-Dickstein et al. 2015, Eq. 14). nll:
    negative log-likelihood of the probability-flow ODE, bits per dimension (Song et al. 2021b). importance:
    log-likelihood by importance sampling (2015, Eq. 9). entropy: bounds on the entropy of a reverse step (2015, Eq.
    24). parzen: Parzen-window estimate of the log-likelihood from samples. memorisation: distance of samples, and of
    test images, to the nearest training image. fid, kid, pr: Frechet distance, kernel distance, precision and recall of
    features of samples and of the split, with errors. sfid: the Frechet distance of spatial features of the Inception
    network. prdc: precision, recall, density and coverage with k = 5. is: Inception Score of samples. authenticity:
    percentage of samples that are no near copies of training images, by features (AuthPct). accuracy: share of right
    answers of a run that is a classifier. Default: the experiment's choice; fid for images."""
    split: Split = "test"
    """Split of the data to measure, or to compare samples with. Published FIDs are of the training split."""
    reference: str | None = None
    """What to compare samples with, in place of the run's own data: a file of statistics made by ddpm-jax reference, by
    pytorch-fid or of Dhariwal & Nichol 2021 (.npz with mu and sigma, for fid and sfid), a .npz of images (arr_0), a
    folder or zip of pictures of one size, another workdir, an experiment, or a TFDS data set that is prepared."""
    num: int | None = None
    """Number of examples, from the first on. Default: all. A file of statistics is of all its images in any case."""
    times: int | None = None
    """Number of random t per example at which bpd and K are estimated: unbiased and faster, but without the
    progressive-coding curve. Default: all t."""
    batch_size: int | None = None
    """Number of examples that each device evaluates together. Default: 120, and fewer for images larger than 64x64."""
    seed: int = 0
    """Seed of the noise, 0 to 2^32 - 1."""
    clip: bool = True
    """Clip estimates of x_0 to the range of the data where the experiment does, as in Ho et al. 2020."""
    weights: WeightsName = "ema"
    """Parameters to measure: ema (their moving average), raw (those that the optimizer updates), or an average of this
    length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to measure: the newest, or the best of a run that keeps it (train --keep-best)."""
    samples: int | None = None
    """Number of samples for parzen and the metrics of features, and for memorisation (at most 1000). Default: 10,000;
    of images on disk all. Published FIDs and Inception Scores are of 50,000."""
    features: FeatureName | Path = "inception"
    """Features for fid, kid, pr, prdc and authenticity. inception: the Inception network with the resizing of Heusel et
    al. 2017; inception-pytorch-fid and inception-clean: with that of pytorch-fid and of clean-fid; pixels: the pixels
    themselves, without a network, for small images. The workdir of a classifier: its activations, and for is its
    classes. A Python file: its function features(images), from uint8 [num, height, width, channels] to float32 [num,
    dims]."""
    inception_weights: Path | None = None
    """File of the weights of the Inception network, pt_inception-2015-12-05-6726825d.pth. Default: the one in PyTorch's
    cache of downloads."""
    sampler: SamplerName | None = None
    """Sampler of the samples for parzen and the metrics of features. Default: the experiment's own; ddim if --eta is
    given."""
    eta: float | None = None
    """Noise of ddim and dpm++ for these samples, from 0 (deterministic) to 1. Default: 0; with dpm++2m-sde 1."""
    guidance: float | None = None
    """Scale of classifier-free guidance of these samples, for a class-conditional run: 1 is none."""
    steps: int | None = None
    """Number of steps, 1 to T, of the model that bpd measures, and of these samples. Default: T."""
    spacing: ModelSpacingName = "even"
    """Spacing of these steps. optimal has the best bound on training images (Watson et al. 2021), and in the papers
    worse pictures than even steps (a greater Frechet distance)."""
    variance: VarianceName | None = None
    """Variance of these steps: fixed_small, fixed_large, or analytic (Bao et al. 2022). analytic and optimal are
    computed from statistics of the network without guidance, which are estimated on training images the first time; so
    they exclude --guidance. Default: the experiment's own."""
    chains: int = 16
    """Number of forward chains per example for importance."""
    tolerance: float = 1e-5
    """Tolerance of the ODE solver for nll, relative and absolute."""
    dequantization: Dequantization = "decoder"
    """How nll maps the ODE to discrete data: by the decoder p(x_0 | x_1) of the run, or by uniform noise as wide as a
    level, as in Song et al. 2021b, which suits 256 levels."""
    json: Path | None = None
    """JSON file for the results."""

    @property
    def num_samples(self) -> int:
        """The number of samples that are drawn."""
        return SAMPLES if self.samples is None else self.samples

    def protocol(self) -> dict:
        """The options that the results of a run depend on, as they are recorded."""
        names = ("metrics", "split", "num", "times", "seed", "clip")
        protocol = {name: getattr(self, name) for name in names} | {"samples": self.num_samples}
        weights = {} if self.weights == "ema" else {"weights": self.weights}  # not in records of earlier versions
        chains = {"chains": self.chains} if "importance" in (self.metrics or ()) else {}
        more = ("tolerance", "dequantization") if "nll" in (self.metrics or ()) else ()
        more += () if self.reference is None else ("reference",)  # not in records of earlier versions
        features = {"features": str(self.features)} if set(OF_FEATURES) & set(self.metrics or ()) else {}
        return protocol | weights | chains | {name: getattr(self, name) for name in more} | features | self.sampling()

    def sampling(self) -> dict:
        """The options of the steps and of the samples that are not the default."""
        defaults = {"sampler": None, "steps": None, "spacing": "even", "variance": None, "eta": None, "guidance": None}
        return {name: getattr(self, name) for name, value in defaults.items() if getattr(self, name) != value}

    def drawing(self) -> SampleRequest:
        """The request of the samples that the metrics in `OF_SAMPLES` measure."""
        return SampleRequest(
            self.workdir, num=self.num_samples, seed=self.seed, weights=self.weights, **self.sampling()
        )


@dataclass(frozen=True)
class ReferenceRequest(Processes):
    """Computes the statistics of reference images, which evaluate --reference FILE compares samples with."""

    source: str
    """The images: a workdir or an experiment (its data), a TFDS data set that is prepared, a folder or zip of pictures
    of one size, or a .npz of images (arr_0 uint8 [N, H, W, C])."""
    out: Path
    """File to write, ending in .npz: mu and sigma of the features, mu_s and sigma_s of those for sFID if the features
    are of the Inception network, and what they were made from."""
    split: Split = "train"
    """Split of the data. Published FIDs are distances from the training split."""
    num: int | None = None
    """Number of images, from the first on. Default: all."""
    channels: Literal[1, 3] = 3
    """Channels of the pictures of a folder or zip: 1 for gray images, 3 for colors."""
    features: FeatureName | Path = "inception"
    """Features, as for evaluate, which refuses a file of other ones."""
    inception_weights: Path | None = None
    """File of the weights of the Inception network, pt_inception-2015-12-05-6726825d.pth. Default: the one in PyTorch's
    cache of downloads."""
    batch_size: int | None = None
    """Number of images whose features each device computes together. Default: 64."""
    overwrite: bool = False
    """Replace an existing file."""
