"""Options of `study`, `edit` and `tour`, with their help. Imports nothing heavy, so that --help answers at once."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ddpm_jax.runs.requests import CheckpointName, SamplerName, SpacingName, WeightsName

Kind = Literal[
    "progressive",
    "shared",
    "interpolate",
    "neighbours",
    "chain",
    "denoise",
    "inpaint",
    "sweep",
    "bounds",
    "reconstruct",
]
"""The keys of ``studies.sheets.STUDIES``."""
Missing = Literal["centre", "left", "right", "top", "bottom"]
"""The parts of an example that `inpaint` can fill in."""

EditKind = Literal["inpaint", "super-resolve", "deblur", "colorize", "sdedit", "interpolate"]
"""The kinds of `edit`."""
Method = Literal["mmps", "pigdm", "dps", "twisted", "replacement", "repaint"]
"""The methods of `edit` that sample given a measurement."""


def _only(*kinds: Kind | EditKind) -> dict[str, tuple[Kind | EditKind, ...]]:
    """Metadata of an option that applies to these kinds only."""
    return {"kinds": kinds}


@dataclass(frozen=True)
class StudyRequest:
    """Draws a picture of a trained run, as in Ho et al. 2020 and Sohl-Dickstein et al. 2015."""

    kind: Kind
    """progressive: estimates of x_0 as t falls.
    shared: samples that share x_t.
    interpolate: interpolations between two images, at several t.
    neighbours: samples and their nearest training images.
    chain: x_t of the forward and of the reverse chain at several t; for points also the drift of the reverse chain.
    denoise: test examples, clean, with noise, and restored.
    inpaint: test examples, clean, with a missing part, and filled in.
    sweep: quality of several samplers against their number of network calls, with a table and its .json.
    bounds: bits/dim of the models of few steps, by spacing and variance, with a table and its .json.
    reconstruct: error of test images that DDIM encodes and decodes in few steps, with a table and its .json."""
    workdir: Path
    """Folder of the run, or the name of a model that comes with the library, such as digits."""
    out: Path | None = None
    """Picture to write, a .png. Default: a file in studies/ of the workdir; of a model, in outputs/NAME/studies/."""
    num: int | None = None
    """Number of rows (progressive, neighbours), of samples per row (shared), of shares (interpolate) or of examples
    (the others). Default: 8 images, 20 sequences or 2000 points; for sweep 1024 images, for bounds and reconstruct
    all test images."""
    seed: int = 0
    """Seed of the noise and of the choice of examples, 0 to 2^32 - 1."""
    times: tuple[int, ...] | None = field(default=None, metadata=_only("shared", "interpolate", "chain"))
    """Values of t (shared, interpolate, chain), 0 to T; for shared 1 to T. Default: T, 3T/4, T/2, T/4 for shared; nine,
    evenly spaced from 0 to T, for interpolate; 0, T/2, T for chain."""
    shares: tuple[float, ...] | None = field(default=None, metadata=_only("interpolate"))
    """Shares of the second image, 0 to 1 (interpolate). Default: --num shares, evenly spaced from 0 to 1."""
    split: Literal["test", "train"] = field(default="test", metadata=_only("interpolate"))
    """Split from which the two images are chosen (interpolate)."""
    noise: float | None = field(default=None, metadata=_only("denoise"))
    """Standard deviation of the noise added to x_0, above 0; for bits, probability of a flip, in (0, 0.5) (denoise).
    Default: 1, or 0.1 for bits."""
    annealed: bool = field(default=False, metadata=_only("denoise"))
    """Multiply the kernel of a step to s by r^((T - s) / T) instead of r, where r(x) = p(noisy example | x_0 = x)
    (denoise)."""
    missing: Missing = field(default="centre", metadata=_only("inpaint"))
    """Part of each example that is removed and filled in (inpaint). centre is 0.3 to 0.7 of each side."""
    noised: bool = field(default=False, metadata=_only("inpaint"))
    """Hold the known part at samples of q(x_t | x_0) at each t, instead of its clean values (inpaint)."""
    samplers: tuple[SamplerName, ...] = field(
        default=("ancestral", "ddim", "dpm++2m", "dpm++3m", "heun"), metadata=_only("sweep")
    )
    """Samplers to compare (sweep)."""
    steps: tuple[int, ...] = field(default=(5, 10, 20, 50, 100, 1000), metadata=_only("sweep", "bounds", "reconstruct"))
    """Numbers of steps; those above T are left out (sweep, bounds, reconstruct)."""
    etas: tuple[float, ...] | None = field(default=None, metadata=_only("sweep"))
    """Values of eta, 0 to 1, at which to compare each sampler that has one (sweep). ancestral, where the variance is
    fixed_large, is the row sigma-hat of Song et al. 2021, Table 1. Default: that of the sampler."""
    spacing: SpacingName = field(default="even", metadata=_only("sweep", "reconstruct"))
    """Spacing of the steps (sweep, reconstruct)."""
    features: Path | None = field(default=None, metadata=_only("sweep"))
    """Workdir of a classifier, or Python file with a function features(images), whose features are compared (sweep).
    Default: the pixels."""
    weights: WeightsName = "ema"
    """Parameters to draw with: ema (their moving average), raw (those that the optimizer updates), or an average of
    this length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to draw with: the newest, or the best of a run that keeps it (train --keep-best)."""
    overwrite: bool = False
    """Replace an existing output."""

    def picture_options(self) -> dict[str, Any]:
        """The options that the picture depends on, apart from the run; they are recorded with it."""
        others = ("workdir", "out", "weights", "checkpoint", "overwrite", "features")
        named = {} if self.features is None else {"features": self.features.name}
        return {name: value for name, value in vars(self).items() if name not in others} | named


MEASURED: tuple[EditKind, ...] = ("inpaint", "super-resolve", "deblur", "colorize")
"""The kinds of `edit` that sample x_0 given a measurement y = A x_0 + noise."""


@dataclass(frozen=True)
class EditRequest:
    """Edits images with a trained run. Result i depends on the seed and i only."""

    kind: EditKind
    """inpaint: a missing part of the image filled in.
    super-resolve: the image from one with fewer pixels.
    deblur: the image from a blurred one.
    colorize: the image from a grey one.
    sdedit: the image with noise added and taken out again, such as a sketch made realistic.
    interpolate: images between two images, along the sphere of their latents."""
    workdir: Path
    """Folder of the run, or the name of a model that comes with the library, such as digits."""
    image: tuple[Path, ...] = ()
    """The image: a picture file of the run's size, or a .npz or .npy whose first array has one image, uint8. Two for
    interpolate."""
    from_test: tuple[int, ...] = ()
    """Number of the test image of the run to use instead, from 0; two numbers for interpolate."""
    out: Path | None = None
    """Output: a .png (the measurement, the results and the original in a row), or a .npz (arr_0: the results, uint8
    [N, H, W, C]). Default: a picture in edits/ of the workdir; of a model, in outputs/NAME/edits/."""
    num: int = 8
    """Number of results."""
    seed: int = 0
    """Seed of the noise, 0 to 2^32 - 1."""
    method: Method = field(default="mmps", metadata=_only(*MEASURED))
    """How to sample given the measurement. mmps: exact for Gaussian data. pigdm and dps: simpler and biased. twisted:
    exact in the limit of many particles. For inpaint also replacement and repaint, which hold the known part at samples
    of q(x_t | x_0)."""
    measured: bool = field(default=False, metadata=_only(*MEASURED))
    """The image is the measurement itself: small for super-resolve, grey for colorize, blurred, or with a part to be
    filled in. Otherwise it is the original, which is measured, with noise, and shown too."""
    noise: float = field(default=0.05, metadata=_only(*MEASURED))
    """Standard deviation of the noise of the measurement, above 0; images have values from -1 to 1."""
    mask: Path | None = field(default=None, metadata=_only("inpaint"))
    """Picture of the run's size, white where the image is to be filled in (inpaint). Default: the middle."""
    box: tuple[int, int, int, int] | None = field(default=None, metadata=_only("inpaint"))
    """TOP LEFT HEIGHT WIDTH in pixels of the part to be filled in, instead of a mask (inpaint)."""
    factor: int = field(default=2, metadata=_only("super-resolve"))
    """Factor by which height and width grow (super-resolve)."""
    blur: float = field(default=1.0, metadata=_only("deblur"))
    """Standard deviation of the Gaussian blur in pixels (deblur)."""
    strength: float = field(default=0.5, metadata=_only("sdedit"))
    """t0 / T, the time from which to sample, 0 to 1: 0 returns the image, 1 nearly forgets it (sdedit)."""
    iterations: int = field(default=5, metadata=_only(*MEASURED))
    """Number of steps of conjugate gradients for mmps, pigdm and twisted; for mmps each costs a gradient."""
    particles: int = field(default=16, metadata=_only(*MEASURED))
    """Number of particles of each result for twisted."""
    scale: float = field(default=1.0, metadata=_only(*MEASURED))
    """Length of the steps of dps towards the measurement."""
    jump: int = field(default=10, metadata=_only("inpaint"))
    """Number of steps that repaint goes back up."""
    resamples: int = field(default=10, metadata=_only("inpaint"))
    """Number of times that repaint takes each stretch."""
    sampler: SamplerName | None = field(default=None, metadata=_only(*MEASURED, "sdedit"))
    """Sampler. Default: ancestral. interpolate has ddim."""
    steps: int | None = None
    """Number of steps, 1 to T. Default: 250, or T if that is less."""
    spacing: SpacingName = "even"
    """Spacing of the steps over 0..T."""
    label: int | None = None
    """Class of the results, for a class-conditional run. Default: none."""
    weights: WeightsName = "ema"
    """Parameters to draw with: ema (their moving average), raw (those that the optimizer updates), or an average of
    this length relative to the run, such as 0.1, if the run keeps averages for it (--power-ema)."""
    checkpoint: CheckpointName = "newest"
    """Checkpoint to draw with: the newest, or the best of a run that keeps it (train --keep-best)."""
    overwrite: bool = False
    """Replace an existing output."""

    def picture_options(self) -> dict[str, Any]:
        """The options that the results depend on, apart from the run; they are recorded with them."""
        others = ("workdir", "out", "weights", "checkpoint", "overwrite", "image", "mask")
        named = {name: value for name, value in vars(self).items() if name not in others}
        return named | {"image": [str(path) for path in self.image], "mask": self.mask and str(self.mask)}


@dataclass(frozen=True)
class TourRequest:
    """Shows the mathematics of diffusion in pictures, on one page of HTML."""

    source: str = "digits"
    """Folder of a run on images, or a model that comes with the library, such as digits, or a data set: digits,
    mnist_5000, dead_leaves, mnist, fashion_mnist or cifar10. The name --source may be left out."""
    out: Path = Path("tour")
    """Folder for the pictures and index.html."""
    optimal: bool = False
    """Show the optimal model of the data set, which is computed without a network, and not the model of this name that
    comes with the library."""
    overwrite: bool = False
    """Replace an existing tour."""
